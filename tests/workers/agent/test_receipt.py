"""A run's end becomes a receipt that the server takes, and that says no more than what is so."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.api.requests import Receipt
from app.clis.template import CliTemplate
from app.domain.run import Outcome, Usage, Verdict
from workers.agent import receipt
from workers.agent.leases import Hold
from workers.agent.local_runs import Machine

SHA = "a" * 40


def a_hold(**work: Any) -> Hold:
    plain = {"task_id": "acme/widgets#12", "lease": 3, "branch_name": "task/12-fix", "wants_pull_request": True}
    return Hold("acme/widgets#12", 3, plain | work, "# Fix the total\n")


def a_result(**given: Any) -> dict[str, Any]:
    plain = {"end": "finished", "step": "deliver", "exit_code": 0, "pushed": True, "head": SHA, "commits": [SHA]}
    return plain | {"validation": [{"command": "make test", "exit_code": 0, "seconds": 1.5, "tail": ""}]} | given


def told(outcome: Outcome, hold: Hold | None = None, **result: Any) -> dict[str, Any]:
    """The receipt, which the server must be able to read."""
    letter = receipt.of(hold or a_hold(), a_result(**result), outcome)
    Receipt().load({"agent_id": "a1", **letter})
    return letter


DONE = Outcome(Verdict.SUCCEEDED, "Done.", "s-1", Usage(1200, 200, 90))


def test_where_there_is_no_branch_none_is_claimed() -> None:
    """A push to `refs/for/` leaves no branch behind, and the server is told so by the commit alone."""
    push = {"ref": "refs/for/main", "options": ["topic=task/12-fix"], "fetch": "refs/pull/13/head"}
    hold = a_hold(push=push, repository={"clone_url": "https://x/y.git", "default_branch": "main"})
    assert told(DONE, hold)["artifacts"] == [{"type": "commit", "sha": SHA}]
    asked = Machine(Path("/nowhere"), "a1", CliTemplate(), None)._of(hold)["repository"]
    assert (asked["push_to"], asked["push_options"], asked["fetch_from"]) == tuple(push.values())
    plain = a_hold(repository={"clone_url": "https://x/y.git", "default_branch": "main"}, push={"ref": "refs/heads/t"})
    assert "push_to" not in Machine(Path("/nowhere"), "a1", CliTemplate(), None)._of(plain)["repository"]


def test_a_run_that_was_pushed_is_completed_with_its_branch_and_commits() -> None:
    letter = told(DONE)
    assert (letter["status"], letter["lease"], letter["session"]) == ("completed", 3, "s-1")
    assert letter["artifacts"] == [{"type": "branch", "ref": "task/12-fix"}, {"type": "commit", "sha": SHA}]
    assert letter["checks"][0]["command"] == "make test"
    assert letter["usage"]["output_tokens"] == 90


def test_what_was_not_pushed_is_not_claimed() -> None:
    assert told(DONE, pushed=False, commits=[SHA])["artifacts"] == []


@pytest.mark.parametrize(
    ("result", "outcome", "failure"),
    [({"end": "failed", "step": "agent", "exit_code": 1}, Outcome(Verdict.FAILED, failure="cli_failed"), "cli_failed"),
     ({"end": "timed_out", "step": "agent"}, Outcome(Verdict.UNKNOWN), "timed_out"),
     ({"end": "lost", "reason": "the host was rebooted"}, Outcome(Verdict.UNKNOWN), "lost"),
     ({"end": "failed", "step": "deliver", "reason": "git push failed"}, DONE, "push_refused"),
     ({"validation": [{"command": "make test", "exit_code": 2, "tail": "1 failed"}]}, DONE, "validation_failed")],
)  # fmt: skip
def test_each_failure_keeps_its_name_and_says_why(result: dict[str, Any], outcome: Outcome, failure: str) -> None:
    letter = told(outcome, **result)
    assert (letter["status"], letter["failure"]) == ("failed", failure)
    assert letter["error"]


def test_a_limit_says_when_it_is_over() -> None:
    limited = Outcome(Verdict.LIMITED, "You've hit your usage limit.", resets_at="2026-11-24T05:00:00+00:00")
    letter = told(limited, end="failed", step="agent", exit_code=1)
    assert (letter["failure"], letter["resets_at"]) == ("limit", "2026-11-24T05:00:00+00:00")


@pytest.mark.parametrize(("wants_pull", "status"), [(True, "completed"), (False, "failed")])
def test_without_a_pull_request_the_clis_word_must_have_been_understood(wants_pull: bool, status: str) -> None:
    assert told(Outcome(Verdict.UNKNOWN), a_hold(wants_pull_request=wants_pull))["status"] == status


def test_a_receipt_that_was_not_taken_is_told_once_more_as_a_failure() -> None:
    letter = receipt.refused(told(DONE), "artifacts: commit 'aaa' is not on the forge as claimed.")
    assert (letter["status"], letter["again"]) == ("failed", True)
    assert "not on the forge" in letter["error"]
    assert "artifacts" not in letter


def test_what_is_written_down_of_a_hold_is_what_makes_it_again() -> None:
    assert Hold(**json.loads(json.dumps(a_hold().kept()))) == a_hold()

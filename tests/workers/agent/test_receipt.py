"""Checks the receipt that the pull agent makes at the end of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.api import requests
from app.clis.template import CliTemplate
from app.domain.run import Outcome, Usage, Verdict
from workers.agent.held_tasks import HeldTask
from workers.agent.local_runs import LocalRuns
from workers.agent.messages import Work
from workers.agent.receipt import Receipt, make_receipt, replace_refused

SHA = "a" * 40


def a_held_task(**work: Any) -> HeldTask:
    plain = {"task_id": "acme/widgets#12", "lease": 3, "branch_name": "task/12-fix", "wants_pull_request": True}
    return HeldTask.taken(Work.from_json(plain | {"prompt": {"text": "# Fix the total\n"}} | work))


def a_result(**given: Any) -> dict[str, Any]:
    plain = {"end": "finished", "step": "deliver", "exit_code": 0, "pushed": True, "head": SHA, "commits": [SHA]}
    return plain | {"validation": [{"command": "make test", "exit_code": 0, "seconds": 1.5, "tail": ""}]} | given


def receipt_of(outcome: Outcome, held: HeldTask | None = None, **result: Any) -> Receipt:
    """The receipt, which the server must be able to read."""
    receipt = make_receipt(held or a_held_task(), a_result(**result), outcome)
    requests.Receipt().load({"agent_id": "a1", **receipt.body()})
    return receipt


DONE = Outcome(Verdict.SUCCEEDED, "Done.", "s-1", Usage(1200, 200, 90))


def test_where_there_is_no_branch_none_is_claimed() -> None:
    """A push to `refs/for/` leaves no branch behind, so the receipt names the commit alone."""
    push = {"ref": "refs/for/main", "options": ["topic=task/12-fix"], "fetch": "refs/pull/13/head"}
    known = {"clone_url": "https://x/y.git", "default_branch": "main"}
    held, runs = a_held_task(push=push, repository=known), LocalRuns(Path("/nowhere"), "a1", CliTemplate(), None)
    assert receipt_of(DONE, held).artifacts == ({"type": "commit", "sha": SHA},)
    asked = runs.describe_run(held)["repository"]
    assert asked
    assert (asked["push_to"], asked["push_options"], asked["fetch_from"]) == tuple(push.values())
    plain = a_held_task(repository=known, push={"ref": "refs/heads/t"})
    assert "push_to" not in (runs.describe_run(plain)["repository"] or {})


def test_a_run_that_was_pushed_is_completed_with_its_branch_and_commits() -> None:
    receipt = receipt_of(DONE)
    assert (receipt.status, receipt.lease, receipt.session) == ("completed", 3, "s-1")
    assert receipt.artifacts == ({"type": "branch", "ref": "task/12-fix"}, {"type": "commit", "sha": SHA})
    assert receipt.checks[0]["command"] == "make test"
    assert receipt.usage and receipt.usage["output_tokens"] == 90


def test_what_was_not_pushed_is_not_claimed() -> None:
    assert receipt_of(DONE, pushed=False, commits=[SHA]).artifacts == ()


@pytest.mark.parametrize(
    ("result", "outcome", "failure"),
    [({"end": "failed", "step": "agent", "exit_code": 1}, Outcome(Verdict.FAILED, failure="cli_failed"), "cli_failed"),
     ({"end": "timed_out", "step": "agent"}, Outcome(Verdict.UNKNOWN), "timed_out"),
     ({"end": "lost", "reason": "the host was rebooted"}, Outcome(Verdict.UNKNOWN), "lost"),
     ({"end": "failed", "step": "deliver", "reason": "git push failed"}, DONE, "push_refused"),
     ({"validation": [{"command": "make test", "exit_code": 2, "tail": "1 failed"}]}, DONE, "validation_failed")],
)  # fmt: skip
def test_each_failure_keeps_its_name_and_says_why(result: dict[str, Any], outcome: Outcome, failure: str) -> None:
    receipt = receipt_of(outcome, **result)
    assert (receipt.status, receipt.failure) == ("failed", failure)
    assert receipt.error


def test_a_limit_says_when_it_is_over() -> None:
    limited = Outcome(Verdict.LIMITED, "You've hit your usage limit.", resets_at="2026-11-24T05:00:00+00:00")
    receipt = receipt_of(limited, end="failed", step="agent", exit_code=1)
    assert (receipt.failure, receipt.resets_at) == ("limit", "2026-11-24T05:00:00+00:00")


@pytest.mark.parametrize(("wants_pull", "status"), [(True, "completed"), (False, "failed")])
def test_without_a_pull_request_the_clis_word_must_have_been_understood(wants_pull: bool, status: str) -> None:
    assert receipt_of(Outcome(Verdict.UNKNOWN), a_held_task(wants_pull_request=wants_pull)).status == status


def test_a_receipt_that_was_not_taken_is_told_once_more_as_a_failure() -> None:
    receipt = replace_refused(receipt_of(DONE), "artifacts: commit 'aaa' is not on the forge as claimed.")
    assert (receipt.status, receipt.again, "again" in receipt.body()) == ("failed", True, False)
    assert "not on the forge" in str(receipt.error)
    assert "artifacts" not in receipt.body()


def test_a_receipt_is_the_same_after_it_was_saved() -> None:
    for receipt in (receipt_of(DONE), replace_refused(receipt_of(DONE), "no")):
        assert Receipt.from_json(json.loads(json.dumps(receipt.as_json()))) == receipt


def test_a_held_task_is_the_same_after_it_was_saved() -> None:
    push = {"ref": "refs/for/main", "options": ["topic=task/12-fix"], "fetch": None}
    held = a_held_task(push=push, repository={"clone_url": "https://x/y.git", "default_branch": "main"})
    assert HeldTask.from_json(json.loads(json.dumps(held.as_json()))) == held


def test_the_state_of_an_earlier_version_is_read() -> None:
    """Agents are upgraded while they hold tasks."""
    work = {"task_id": "x", "lease": 2, "prompt": {"text": "Do it."}, "push": None, "repository": None, "labels": []}
    saved = {
        "task_id": "x", "lease": 2, "work": work, "prompt": "Use sum().", "session": "s-1", "step": "running",
        "mark": "abc123", "base": {"stdout": 5, "stderr": 0}, "offsets": {"stdout": 7, "stderr": 0}, "until": 9.5,
        "boot": "b1", "began": 1.5, "cut": True, "stop": "why", "used": {"input_tokens": 5}, "cli": "codex",
    }  # fmt: skip
    held = HeldTask.from_json(saved)
    assert (held.start_id, held.lease_until, held.interrupted, held.stop_reason) == ("abc123", 9.5, True, "why")
    assert (held.work.prompt, held.usage_before, held.log_base["stdout"]) == ("Do it.", Usage(5), 5)
    assert held.as_json().keys() == saved.keys()

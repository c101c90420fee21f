"""Checks the prompt and the pushed commit in the order of the next run."""

from typing import Any

from sqlalchemy import Connection

from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Outcome, Verdict
from app.ports import Fleet
from app.services.dispatch import git_flow, placement, prompts, start_order
from app.store import task_details, tasks
from tests.builders import AT, a_fact, a_run, a_stored_task, an_outbox_entry
from tests.services.dispatch.limited_runs import begin, ends, newest

PLACED = {"host_id": "localhost", "agent_type": "coder", "until": AT.isoformat()}
REVIEW: dict[str, Any] = {"text": "Use sum().", "comments": [["core.py", 7, "Here."]], "until": AT.isoformat()}


def told(conn: Connection, *facts: Fact) -> Any:
    task = a_stored_task(conn)
    for fact in facts:
        task = tasks.record(conn, task.id, fact, AT)
    return prompts.prompt_of(conn, task, task_details.get(conn, task.id))


REVIEWED = (
    Fact(FactKind.PLACED, PLACED),
    a_fact(FactKind.STARTED, run=1),
    a_fact(FactKind.FINISHED, run=1, pushed=True, head="a", session="s-1"),
    a_fact(FactKind.PULL_OPENED, run=1, number=13, head="a"),
    a_fact(FactKind.CHANGES_REQUESTED, key="review 1", **REVIEW),
)


def test_a_first_run_is_told_the_issue(conn: Connection) -> None:
    assert told(conn, Fact(FactKind.PLACED, PLACED)) == (None, "# Fix the total\n")


def test_a_review_round_goes_on_in_the_session_with_the_review(conn: Connection) -> None:
    session, text = told(conn, *REVIEWED)
    assert session == "s-1"
    assert "Use sum()." in text and "core.py:7" in text


def test_a_review_round_that_is_tried_again_still_knows_the_review_and_what_went_wrong(conn: Connection) -> None:
    failed = a_fact(FactKind.FAILED, run=2, reason="cli_failed", why="exit code 3", transient=True)
    session, text = told(conn, *REVIEWED, failed, a_fact(FactKind.DUE), Fact(FactKind.PLACED, PLACED))
    assert session == "s-1"
    assert "Use sum()." in text and "exit code 3" in text


class TestWhatAnEarlierRunPushed:
    A, B, THEIRS = "a" * 40, "b" * 40, "c" * 40

    def heads(self, *results: dict[str, Any] | None) -> str | None:
        return git_flow.last_pushed([a_run(result=result) for result in results])

    def test_is_told_to_the_host(self, fleet: Fleet) -> None:
        (task,) = begin(fleet)
        placement.place_waiting(fleet)
        order = start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=newest(fleet, task)[0].run))
        assert order and order.repository and order.repository.pushed is None
        pushed = {"end": "finished", "pushed": True, "changed": True, "head": self.A, "commits": [self.A]}
        ends(fleet, task, pushed, Outcome(Verdict.SUCCEEDED))
        with fleet.engine.begin() as conn:
            tasks.record(conn, task.id, a_fact(FactKind.PULL_OPENED, run=1, number=13, head=self.A), fleet.clock())
            tasks.record(conn, task.id, a_fact(FactKind.CHANGES_REQUESTED, key="review 1", **REVIEW), fleet.clock())
        placement.place_waiting(fleet)
        order = start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=2))
        assert order and order.repository and order.repository.pushed == self.A

    def test_is_the_newest_that_is_no_commit_of_others(self) -> None:
        first = {"pushed": True, "changed": True, "head": self.A}
        assert self.heads(first, {"pushed": True, "changed": True, "head": self.B}, None) == self.B
        nothing_new = {"pushed": True, "changed": False, "head": self.THEIRS}
        assert self.heads(first, nothing_new, {"pushed": False, "changed": True, "head": self.B}) == self.A

    def test_counts_where_it_was_found_on_the_forge_or_told_by_an_agent(self) -> None:
        adopted = {"pushed": True, "changed": False, "head": self.A, "adopted": True}
        assert self.heads(adopted) == self.heads({"pushed": True, "head": self.A}) == self.A

    def test_is_no_option_in_disguise(self) -> None:
        assert self.heads({"pushed": True, "head": "--all"}, {"pushed": True, "head": None}) is None

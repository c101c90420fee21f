"""What the next run is told: the issue, the review that was not answered yet, what went wrong before."""

from typing import Any

from sqlalchemy import Connection

from app.domain.lifecycle import Fact, What
from app.services import start
from app.store import tasks, views
from tests.builders import AT, a_fact, a_stored_task

PLACED = {"host_id": "localhost", "agent_type": "coder", "until": AT.isoformat()}
REVIEW: dict[str, Any] = {"text": "Use sum().", "comments": [["core.py", 7, "Here."]], "until": AT.isoformat()}


def told(conn: Connection, *facts: Fact) -> Any:
    task = a_stored_task(conn)
    for fact in facts:
        task = tasks.record(conn, task.id, fact, AT)
    return start.prompt_of(conn, task, views.brief(conn, task.id))


REVIEWED = (
    Fact(What.PLACED, PLACED),
    a_fact(What.STARTED, run=1),
    a_fact(What.FINISHED, run=1, pushed=True, head="a", session="s-1"),
    a_fact(What.PULL_OPENED, run=1, number=13, head="a"),
    a_fact(What.CHANGES_REQUESTED, key="review 1", **REVIEW),
)


def test_a_first_run_is_told_the_issue(conn: Connection) -> None:
    assert told(conn, Fact(What.PLACED, PLACED)) == (None, "# Fix the total\n")


def test_a_review_round_goes_on_in_the_session_with_the_review(conn: Connection) -> None:
    session, text = told(conn, *REVIEWED)
    assert session == "s-1"
    assert "Use sum()." in text and "core.py:7" in text


def test_a_review_round_that_is_tried_again_still_knows_the_review_and_what_went_wrong(conn: Connection) -> None:
    failed = a_fact(What.FAILED, run=2, reason="cli_failed", why="exit code 3", transient=True)
    session, text = told(conn, *REVIEWED, failed, a_fact(What.DUE), Fact(What.PLACED, PLACED))
    assert session == "s-1"
    assert "Use sum()." in text and "exit code 3" in text

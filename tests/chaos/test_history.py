"""The checker of races finds each kind of wrong history, and accepts a right one."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.check_history import Place, faults

SETS = {1: frozenset({"python"}), 2: frozenset({"gpu"})}
PLACES = {
    "a1": Place(frozenset({"python"}), 1),
    "a2": Place(frozenset({"python", "gpu"}), 2),
    "h1": Place(frozenset({"python"}), 1),
}
BEGIN = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
History = list[dict[str, Any]]


def event(
    task: int, seq: int, kind: str, source: str | None, to: str, at: int, run: int | None = None, **detail: Any
) -> dict[str, Any]:
    moment = BEGIN + timedelta(seconds=at)
    return {
        "task_pk": task,
        "seq": seq,
        "kind": kind,
        "from_state": source,
        "to_state": to,
        "run": run,
        "detail": detail,
        "at": moment,
    }


def right() -> History:
    """Task 1 is lost by one agent and done by another, task 2 is done by a host, task 3 by the first agent afterwards."""
    return [
        event(1, 1, "requested", None, "created", 0, mode="undecided", requirement_set_id=1),
        event(1, 2, "claimed", "created", "assigned", 1, agent_id="a1"),
        event(1, 3, "started", "assigned", "running", 2, run=1),
        event(1, 4, "expired", "running", "agent_lost", 9, run=1),
        event(1, 5, "due", "agent_lost", "created", 9),
        event(1, 6, "claimed", "created", "assigned", 10, agent_id="a2"),
        event(1, 7, "finished", "assigned", "completed", 12, run=2),
        event(2, 1, "requested", None, "created", 0, mode="undecided", requirement_set_id=1),
        event(2, 2, "placed", "created", "assigned", 1, host_id="h1"),
        event(2, 3, "started", "assigned", "running", 2, run=1),
        event(2, 4, "finished", "running", "completed", 3, run=1),
        event(3, 1, "requested", None, "created", 0, mode="http_pull", requirement_set_id=1),
        event(3, 2, "claimed", "created", "assigned", 9, agent_id="a1"),
        event(3, 3, "finished", "assigned", "completed", 10, run=1),
    ]


def test_a_right_history_has_no_fault() -> None:
    assert faults(right(), SETS, PLACES) == []


def done_twice(told: History) -> None:
    told.insert(7, event(1, 8, "finished", "created", "completed", 13, run=2))


def never_done(told: History) -> None:
    del told[-1]


def to_one_that_cannot(told: History) -> None:
    told[11]["detail"]["requirement_set_id"] = 2


def over_the_slots(told: History) -> None:
    told[12]["at"] = BEGIN + timedelta(seconds=8)


def a_hosts_task_claimed(told: History) -> None:
    told[0]["detail"]["mode"] = "ssh_cli"


def to_both_sides(told: History) -> None:
    told[5]["kind"], told[5]["detail"] = "placed", {"host_id": "h1"}


def taken_twice(told: History) -> None:
    told[5]["from_state"], told[4]["to_state"] = "running", "running"


def an_old_run_believed(told: History) -> None:
    told[6]["run"] = 1


def a_lost_event(told: History) -> None:
    del told[4]


def a_jump(told: History) -> None:
    told[3]["from_state"] = "assigned"


@pytest.mark.parametrize(
    ("doctor", "word"),
    [(done_twice, "done 2 times"), (never_done, "left as assigned"), (never_done, "done 0 times"), (to_one_that_cannot, "lacks gpu"),
     (over_the_slots, "2 tasks at once in 1 slots"), (a_hosts_task_claimed, "for ssh_cli"), (to_both_sides, "for http_pull"),
     (taken_twice, "while it was running"), (an_old_run_believed, "run 1 was believed"), (a_lost_event, "numbered"), (a_jump, "leaves assigned")],
)  # fmt: skip
def test_a_wrong_one_is_named(doctor: Callable[[History], None], word: str) -> None:
    told = right()
    doctor(told)
    assert any(word in fault for fault in faults(told, SETS, PLACES))

"""Builds tasks in each state, and decides what a fact does to them."""

from datetime import timedelta
from typing import Any

from app.domain.lifecycle import FINAL_STATES, Decision, Fact, FactKind, OutboxKind, decide
from app.domain.task import State, Task
from tests.builders import AT, a_task

LATER = AT + timedelta(minutes=1)
SHOW_STATE = {OutboxKind.COMMENT, OutboxKind.LABEL, OutboxKind.STATUS}


def a_task_in(state: State, **given: Any) -> Task:
    """A task in its second run that came to `state` on a host."""
    usual: dict[str, Any] = {"run": 2, "version": 7, "host_id": "host-1"}
    if state in FINAL_STATES:
        usual["completed_at"] = AT
    return a_task(**usual | given | {"state": state, "ready": given.get("ready", True) and state is State.CREATED})


def the(task: Task, kind: FactKind, **detail: Any) -> Decision:
    """What a fact does that comes from the newest run."""
    return decide(task, Fact(kind, detail, run=task.run), LATER)

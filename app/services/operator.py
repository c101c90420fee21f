"""What an operator may ask of a task: retry, cancel."""

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State, Task
from app.ports import Fleet
from app.store import tasks

ENDED_BY_CANCEL = frozenset({State.CANCELLED})


def about(fleet: Fleet, task_id: str, what: FactKind) -> Task:
    """Record what was asked. Cancelling what is cancelled already changes nothing. Raises Refused."""
    with fleet.engine.begin() as conn:
        task = tasks.find(conn, task_id)
        if what is FactKind.CANCEL and task.state in ENDED_BY_CANCEL:
            return task
        task = tasks.record(conn, task.id, Fact(what), fleet.clock())
    fleet.nudge.soon()
    return task

"""Records what an operator requests of a task: retry or cancel."""

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State, Task
from app.ports import Fleet
from app.store import tasks


def request(fleet: Fleet, task_id: str, kind: FactKind) -> Task:
    """Record the request and wake the workers. Cancelling a cancelled task changes nothing.

    Raises Refused: `unknown` when there is no such task, `invalid` when the request has no effect in its state.
    """
    with fleet.engine.begin() as conn:
        task = tasks.find(conn, task_id)
        if kind is FactKind.CANCEL and task.state is State.CANCELLED:
            return task
        task = tasks.record(conn, task.id, Fact(kind), fleet.clock())
    fleet.nudge.soon()
    return task

"""Makes waiting tasks and moves the clock for the tests of the agent API."""

from typing import Any

from app.domain.task import State
from app.ports import Fleet
from app.services.runs import expiry
from app.store import tasks
from tests.builders import a_stored_task
from tests.conftest import FakeClock


def waiting(fleet: Fleet, number: int = 12, **given: Any) -> str:
    with fleet.engine.begin() as conn:
        return a_stored_task(conn, f"acme/widgets#{number}", at=fleet.clock(), **given).task_id


def state_of(fleet: Fleet, task_id: str) -> State:
    with fleet.engine.begin() as conn:
        return tasks.find(conn, task_id).state


def tick(fleet: Fleet, clock: FakeClock, seconds: float) -> None:
    """Time passes while the control plane looks."""
    for _ in range(int(seconds // 10)):
        clock.pass_(10)
        expiry.expire_and_wake(fleet)

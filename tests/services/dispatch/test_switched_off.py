"""A repository that is switched off gets no runs, and holds up no other task."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from app.cli.demo.forge import FakeForge
from app.domain.agent import Registration
from app.domain.errors import Refused, Unavailable
from app.domain.task import State
from app.ports import Fleet
from app.services.agents import leases
from app.services.dispatch import explain, placement, start_order
from app.services.runs import expiry
from app.store import agents, tasks
from tests.builders import a_host, a_stored_task, an_outbox_entry, apply
from tests.conftest import FakeClock
from tests.services.dispatch.limited_runs import begin, newest
from tests.workshop import Workshop


class TestASwitchedOffRepository:
    RULE: ClassVar[dict[str, Any]] = {
        "forge": "main", "name": "acme/widgets", "cli": None, "max_retries": 2, "task_timeout_secs": 60, "validation": [],
        "enabled": False,
    }  # fmt: skip

    def test_gets_no_runs_and_holds_up_nobody(self, fleet: Fleet, clock: FakeClock) -> None:
        off, *_ = begin(fleet, 5, repositories=[self.RULE], hosts=[a_host(slots=1)])
        with fleet.engine.begin() as conn:
            other = a_stored_task(conn, "acme/gears#9", repository_id=43)
        assert placement.place_waiting(fleet) == 1
        assert newest(fleet, other)[0].state is State.ASSIGNED
        with fleet.engine.begin() as conn:
            assert "enabled = false" in str(explain.why(conn, tasks.load(conn, off.id), clock())["reason"])

    def test_is_nothing_for_agents_either(self, fleet: Fleet) -> None:
        off, *_ = begin(fleet, 70, repositories=[self.RULE], hosts=[])
        with fleet.engine.begin() as conn:
            other = a_stored_task(conn, "acme/gears#9", repository_id=43)
        agent = Registration("a1", "coder", "h", ("python",), max_concurrency=9)
        with fleet.engine.begin() as conn:
            agents.register(conn, agent, b"its token's hash", fleet.clock())
        request = leases.ClaimRequest("a1", b"its token's hash", most=5)
        found = leases.claim(fleet, request)
        assert found is not None
        assert [one["task_id"] for one in found] == [other.task_id]
        assert leases.claim(fleet, request) == []
        with pytest.raises(Refused, match="enabled = false"):
            placement.give_to_agent(fleet, off.task_id, "a1")

    def test_starts_nothing_that_was_placed_before_and_it_waits_again(self, fleet: Fleet, clock: FakeClock) -> None:
        task, *_ = begin(fleet, 1, repositories=[self.RULE | {"enabled": True}], hosts=[a_host(slots=1)])
        assert placement.place_waiting(fleet) == 1
        with fleet.engine.begin() as conn:
            apply(conn, repositories=[self.RULE], hosts=[a_host(slots=1)])
        with pytest.raises(Unavailable, match="enabled = false"):
            start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=1))
        clock.pass_(fleet.config.confirm_secs + 1)
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 0
        now, _ = newest(fleet, task)
        assert (now.state, now.retry_count) == (State.CREATED, 0)


def test_a_switched_off_repository_takes_no_issue_in(forge: FakeForge, make_fleet: Callable[..., Fleet]) -> None:
    rule: dict[str, Any] = {
        "forge": "main", "name": "acme/widgets", "cli": None, "max_retries": 2, "task_timeout_secs": 60, "validation": [],
    }  # fmt: skip
    shop = Workshop(forge, make_fleet, repositories=[rule | {"enabled": False}])
    shop.open_issue()
    shop.converge()
    assert shop.tasks() == [] and "enabled = false" in str(shop.inbox()[0].why)
    with shop.fleet.engine.begin() as conn:
        apply(conn, forge_url=forge.url, repositories=[rule])
    shop.reconcile()
    assert len(shop.tasks()) == 1

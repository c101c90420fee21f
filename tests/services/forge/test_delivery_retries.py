"""Deliveries wait while the forge is away, and say why they can never be applied."""

import pytest

from app.domain.task import State
from app.services.forge.deliveries import apply_deliveries
from tests import builders
from tests.conftest import FakeClock
from tests.workshop import WIDGETS, Workshop


@pytest.mark.parametrize("fault", [500, 502, 503, 429, 423, "cut"])
def test_a_delivery_waits_while_the_forge_does_not_answer(
    workshop: Workshop, clock: FakeClock, fault: int | str
) -> None:
    number = workshop.open_issue()
    workshop.carry()
    workshop.forge.faults.next("GET", rf"/issues/{number}$", fault)
    apply_deliveries(workshop.fleet)
    assert workshop.tasks() == [] and {row.applied_at for row in workshop.inbox()} == {None}
    assert apply_deliveries(workshop.fleet) == 0, "it is not its turn yet"
    clock.pass_(3)
    apply_deliveries(workshop.fleet)
    assert workshop.task(number).state is State.CREATED
    assert {row.result for row in workshop.inbox()} == {"applied"}


def test_a_delivery_waits_as_long_as_the_forge_asked_for(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.open_issue(labels=())
    workshop.carry()
    workshop.forge.faults.next("GET", rf"/issues/{number}$", 429, retry_after=90)
    apply_deliveries(workshop.fleet)
    clock.pass_(89)
    assert apply_deliveries(workshop.fleet) == 0
    clock.pass_(1)
    assert apply_deliveries(workshop.fleet) == 1


def test_nothing_is_lost_while_the_forge_is_off_for_an_hour(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.open_issue()
    workshop.carry()
    workshop.forge.stop()
    for _ in range(20):
        apply_deliveries(workshop.fleet)
        clock.pass_(180)
    workshop.forge.start()
    apply_deliveries(workshop.fleet)
    assert workshop.task(number).state is State.CREATED


def test_a_delivery_about_a_deleted_issue_is_no_error(workshop: Workshop) -> None:
    number = workshop.open_issue()
    workshop.carry()
    del workshop.forge.repository(WIDGETS).issues[number]
    apply_deliveries(workshop.fleet)
    assert {row.result for row in workshop.inbox()} == {"applied"} and workshop.tasks() == []


def test_a_missing_token_is_named_in_the_delivery(workshop: Workshop) -> None:
    with workshop.fleet.engine.begin() as conn:
        forge = builders.declared(workshop.forge.url)["forges"]["main"]
        builders.apply(conn, forges={"main": forge | {"token_env": "NO_SUCH_TOKEN"}})
    workshop.open_issue()
    workshop.carry()
    apply_deliveries(workshop.fleet)
    assert (workshop.inbox()[0].result, workshop.tasks()) == ("refused", [])
    assert "NO_SUCH_TOKEN" in str(workshop.inbox()[0].why)

"""Outbox entries to the forge are delivered once, retried while it does not answer, and given up if it refuses."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.domain.lifecycle import OutboxKind
from app.domain.task import State
from app.services.forge.deliveries import apply_deliveries
from app.services.outbox import deliver
from app.store import outbox
from tests.conftest import FakeClock
from tests.workshop import Workshop


def test_a_start_held_by_a_dead_worker_is_done_once_the_run_is_seen(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.placed()
    with workshop.fleet.engine.begin() as conn:
        (taken,) = outbox.take(conn, [OutboxKind.START], clock())  # its process was killed
    assert [one["kind"] for one in workshop.shown(number)["outbox"]] == ["start"]
    workshop.start(number)
    workshop.converge()
    assert workshop.shown(number)["outbox"] == []
    with workshop.fleet.engine.begin() as conn:
        outbox.done(conn, taken.id, clock())  # it was alive after all


def test_a_refused_comment_is_given_up_and_the_work_goes_on(workshop: Workshop) -> None:
    workshop.forge.faults.next("POST", r"/comments$", 403)
    number = workshop.placed()
    workshop.start(number)
    assert any(entry["given_up"] for entry in workshop.shown(number)["outbox"] if entry["kind"] == "comment")
    workshop.finish(number)
    workshop.converge()
    assert workshop.task(number).state is State.REVIEW_PENDING
    assert len(workshop.comments(number)) == 1


def test_the_pause_between_retries_grows(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", 503, times=3)
    workshop.finish(number)
    waits = []
    for _ in range(3):
        deliver.deliver_due(workshop.fleet)
        assert deliver.deliver_due(workshop.fleet) == 0
        with workshop.fleet.engine.begin() as conn:
            entry = next(one for one in outbox.of_task(conn, workshop.task(number).id) if one.kind == "open_pull")
        waits.append((entry.due_at - clock()).total_seconds())
        clock.now = entry.due_at
    assert waits == sorted(set(waits)) and len(waits) == 3
    workshop.converge()
    assert workshop.task(number).state is State.REVIEW_PENDING


def test_a_retry_waits_as_long_as_the_forge_asked_for(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", 429, retry_after=77)
    workshop.finish(number)
    workshop.converge()
    clock.pass_(76)
    workshop.converge()
    assert workshop.pulls() == []
    clock.pass_(1)
    workshop.converge()
    assert len(workshop.pulls()) == 1


@pytest.mark.parametrize("status", [200, 302])
def test_an_unreadable_answer_delays_no_other_entry(workshop: Workshop, clock: FakeClock, status: int) -> None:
    """A proxy answers instead of the forge: `{"message": ...}` with 200, or a redirect to a login."""
    first, second = workshop.placed(), workshop.placed()
    workshop.start(first)
    workshop.start(second)
    workshop.forge.faults.next("GET", rf"/issues/{first}/comments$", status)
    deliver.deliver_due(workshop.fleet)
    assert len(workshop.comments(second)) == 1


def test_two_workers_at_once_deliver_each_entry_once(workshop: Workshop) -> None:
    numbers = [workshop.running() for _ in range(2)]
    for number in numbers:
        workshop.finish(number)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: deliver.deliver_due(workshop.fleet), range(8)))
    workshop.converge()
    assert len(workshop.pulls()) == 2
    assert all(len(workshop.comments(number)) == 1 for number in numbers)


def test_an_entry_that_its_task_needs_no_more_does_nothing(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.finish(number)
    workshop.close(number)
    workshop.carry()
    apply_deliveries(workshop.fleet)
    workshop.converge()
    assert (workshop.task(number).state, workshop.pulls()) == (State.CANCELLED, [])


@pytest.mark.parametrize("status", [503, 401])
def test_an_outage_of_hours_fails_no_finished_task(workshop: Workshop, clock: FakeClock, status: int) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", status, times=100_000)
    workshop.finish(number)
    workshop.converge_for_hours(clock.pass_)
    assert workshop.task(number).state is State.RUNNING
    workshop.forge.faults.clear()
    workshop.converge_for_hours(clock.pass_)
    assert workshop.task(number).state is State.REVIEW_PENDING

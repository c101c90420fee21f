"""If a host cannot report how a run ended, the forge is asked before another run starts."""

from datetime import timedelta
from typing import Any

import pytest

from app.cli.demo.forge import FakeForge
from app.domain.errors import Unavailable
from app.domain.task import State
from app.services.runs import expiry, report
from app.store import host_polls
from tests.workshop import WIDGETS, Workshop, a_result, an_outcome
from workers.runs.finish import finish
from workers.worker import Worker

LOST: dict[str, Any] = {
    "end": "lost",
    "step": "deliver",
    "exit_code": None,
    "validation": [],
    "reason": "the supervisor died",
}


def head_of(workshop: Workshop, number: int) -> str | None:
    return workshop.fleet.forges("main").branch_head(WIDGETS, workshop.task(number).branch or "")


def test_a_run_lost_after_its_push_has_finished(workshop: Workshop) -> None:
    number = workshop.running()
    head = workshop.push(number)
    assert finish(Worker(workshop.fleet), workshop.run(number), a_result(**LOST, head=head))
    workshop.converge()
    task = workshop.task(number)
    assert (task.state, task.run, task.head) == (State.REVIEW_PENDING, 1, head)
    assert (workshop.run(number).result or {})["adopted"] is True


@pytest.mark.parametrize("told", [{"head": "0" * 40}, {"step": "agent"}], ids=["another commit", "not yet delivering"])
def test_a_run_lost_before_its_push_is_lost(workshop: Workshop, told: dict[str, Any]) -> None:
    number = workshop.running()
    workshop.push(number)
    finish(Worker(workshop.fleet), workshop.run(number), a_result(**LOST | told))
    assert workshop.task(number).state is State.AGENT_LOST


def test_what_an_earlier_run_pushed_saves_no_later_one(workshop: Workshop) -> None:
    number = workshop.running()
    head = workshop.push(number)
    failed = [{"command": "make", "exit_code": 1}]
    report.ended(
        workshop.fleet, workshop.run(number), a_result(pushed=True, head=head, validation=failed), an_outcome()
    )
    workshop.fleet.clock.pass_(30)  # type: ignore[attr-defined]
    expiry.expire_and_wake(workshop.fleet)
    workshop.converge()
    workshop.start(number)
    assert workshop.run(number).number == 2
    finish(Worker(workshop.fleet), workshop.run(number), a_result(**LOST))
    assert workshop.task(number).state is State.AGENT_LOST


def test_a_validation_that_failed_before_the_loss_counts(workshop: Workshop) -> None:
    number = workshop.running()
    head = workshop.push(number)
    checks = [{"command": "make check", "exit_code": 2, "tail": "no"}]
    finish(Worker(workshop.fleet), workshop.run(number), a_result(**LOST | {"validation": checks}, head=head))
    task = workshop.task(number)
    assert (task.state, task.reason) == (State.CREATED, "validation_failed")


def test_while_the_forge_does_not_answer_nothing_is_said(workshop: Workshop, forge: FakeForge) -> None:
    number = workshop.running()
    head = workshop.push(number)
    forge.faults.next("GET", r".*/branches/.*", 503, times=20)
    with pytest.raises(Unavailable):
        finish(Worker(workshop.fleet), workshop.run(number), a_result(**LOST, head=head))
    assert workshop.task(number).state is State.RUNNING
    assert workshop.run(number).ended_at is None


def grace_passes(workshop: Workshop) -> None:
    """The host is looked at in vain for longer than its grace."""
    for _ in range(33):
        workshop.fleet.clock.pass_(10)  # type: ignore[attr-defined]
        at = workshop.fleet.clock()
        with workshop.fleet.engine.begin() as conn:
            host_polls.begin(conn, at)
            for failing in (False, True):
                for host_id in host_polls.take(conn, "us", at, 9, failing):
                    host_polls.failed(conn, "us", host_id, at, (1, 5), "no route to host")
        expiry.expire_and_wake(workshop.fleet)


def test_the_work_of_a_host_that_does_not_come_back_is_taken_from_the_forge(workshop: Workshop) -> None:
    number = workshop.running()
    head = workshop.push(number)
    grace_passes(workshop)
    workshop.converge()
    assert (workshop.task(number).state, head_of(workshop, number)) == (State.REVIEW_PENDING, head)


def test_without_work_on_the_forge_the_run_of_such_a_host_is_lost_and_says_why(workshop: Workshop) -> None:
    number = workshop.running()
    grace_passes(workshop)
    expired = next(event for event in workshop.shown(number)["events"] if event["fact"] == "expired")
    assert "has not answered since" in expired["detail"]["why"] and "no route to host" in expired["detail"]["why"]
    assert workshop.task(number).retry_count == 1


def test_a_run_whose_start_was_asked_for_is_not_given_up_before_its_host_could_come_back(workshop: Workshop) -> None:
    number = workshop.placed()
    run = workshop.run(number)
    for _ in range(2):
        assert report.may_start(workshop.fleet, run)
        assert workshop.run(number).deadline == run.assigned_at + timedelta(seconds=300)
    second_request = workshop.run(number)  # the first may have arrived
    report.restore_deadline(workshop.fleet, second_request)
    assert workshop.run(number).deadline == run.assigned_at + timedelta(seconds=300)
    report.restore_deadline(workshop.fleet, run)
    assert workshop.run(number).deadline == run.assigned_at + timedelta(seconds=30)


def test_a_run_that_has_ended_is_not_started(workshop: Workshop) -> None:
    number = workshop.placed()
    run = workshop.run(number)
    workshop.fleet.clock.pass_(31)  # type: ignore[attr-defined]
    expiry.expire_and_wake(workshop.fleet)
    assert not report.may_start(workshop.fleet, run)

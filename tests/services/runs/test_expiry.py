"""The scan notices silent runs, pauses that are over, and an outage of the control plane."""

from datetime import timedelta
from typing import Any

from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Outcome, Verdict
from app.domain.task import State, Task
from app.ports import Fleet
from app.services.dispatch import placement
from app.services.replay import differences
from app.services.runs import expiry, report
from app.store import host_polls, logs, runs, tasks
from tests.builders import a_stored_task, apply


def placed(fleet: Fleet) -> Task:
    with fleet.engine.begin() as conn:
        apply(conn)
        task = a_stored_task(conn, at=fleet.clock())
    placement.place_waiting(fleet)
    return now(fleet, task)


def running(fleet: Fleet) -> Task:
    task = placed(fleet)
    report.started(fleet, run_of(fleet, task))
    return now(fleet, task)


def run_of(fleet: Fleet, task: Task) -> Any:
    with fleet.engine.begin() as conn:
        return runs.get(conn, task.id, now(fleet, task).run)


def now(fleet: Fleet, task: Task) -> Task:
    with fleet.engine.begin() as conn:
        return tasks.load(conn, task.id)


def tick(fleet: Fleet, clock: Any, seconds: float) -> None:
    """Time passes while the control plane looks."""
    for _ in range(int(seconds // 10) or 1):
        clock.pass_(min(10, seconds))
        look_in_vain(fleet)
        expiry.expire_and_wake(fleet)


def look_in_vain(fleet: Fleet) -> None:
    """A poll of the host gets no answer."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        host_polls.begin(conn, at)
        for failing in (False, True):
            for host_id in host_polls.take(conn, "worker-1", at, most=9, failing=failing):
                host_polls.failed(conn, "worker-1", host_id, at, (1, 1), "no route to host")


def test_a_task_nobody_confirms_goes_back_and_the_attempt_does_not_count(fleet: Fleet, clock: Any) -> None:
    task = placed(fleet)
    expiry.expire_and_wake(fleet)
    tick(fleet, clock, 40)
    after = now(fleet, task)
    assert (after.state, after.ready, after.retry_count, after.unconfirmed) == (State.CREATED, True, 0, 1)


def test_a_silent_run_is_lost_and_tried_again(fleet: Fleet, clock: Any) -> None:
    task = running(fleet)
    expiry.expire_and_wake(fleet)
    tick(fleet, clock, 290)
    assert now(fleet, task).state is State.RUNNING
    tick(fleet, clock, 30)
    after = now(fleet, task)
    assert (after.state, after.ready, after.retry_count) == (State.CREATED, True, 1)
    assert differences(fleet) == (1, [])


def test_after_an_absence_of_the_control_plane_leases_get_that_time_back(fleet: Fleet, clock: Any) -> None:
    task = running(fleet)
    expiry.expire_and_wake(fleet)
    clock.pass_(3600)
    expiry.expire_and_wake(fleet)
    assert now(fleet, task).state is State.RUNNING


def test_a_result_told_twice_is_one_end(fleet: Fleet) -> None:
    task = running(fleet)
    run = run_of(fleet, task)
    result = {"end": "failed", "step": "agent", "exit_code": 3, "reason": "exit code 3"}
    assert report.ended(fleet, run, result, Outcome(Verdict.FAILED))
    assert not report.ended(fleet, run, result, Outcome(Verdict.FAILED))
    after = now(fleet, task)
    assert (after.state, after.retry_count, after.ready) == (State.CREATED, 1, False)


def test_a_back_off_ends_by_the_clock(fleet: Fleet, clock: Any) -> None:
    task = running(fleet)
    report.failed(fleet, run_of(fleet, task), "host_unreachable", "no route", transient=True)
    expiry.expire_and_wake(fleet)
    assert not now(fleet, task).ready
    tick(fleet, clock, 10)
    assert now(fleet, task).ready


def test_what_an_older_run_tells_changes_nothing(fleet: Fleet, clock: Any) -> None:
    task = running(fleet)
    old = run_of(fleet, task)
    report.failed(fleet, old, "lost", "gone", transient=True)
    tick(fleet, clock, 10)
    placement.place_waiting(fleet)
    before = now(fleet, task)
    report.started(fleet, old)
    with fleet.engine.begin() as conn:
        report._record(conn, fleet, old, Fact(FactKind.FINISHED, {"pushed": True, "head": "a"}, run=old.number))
    assert now(fleet, task) == before
    assert before.run == 2


def test_the_log_has_no_gap_and_no_repeat_and_no_secret(fleet: Fleet) -> None:
    run = run_of(fleet, running(fleet))
    secret = b"operator-token-of-the-test"
    assert report.log(fleet, run, "stdout", 0, b"abc").end == 3
    assert report.log(fleet, run, "stdout", 1, b"bcdef").end == 6
    assert report.log(fleet, run, "stdout", 9, b"gap").end == 6
    assert report.log(fleet, run, "stdout", 6, secret).end == 6 + len(secret)
    with fleet.engine.begin() as conn:
        assert logs.read(conn, run.id, "stdout") == b"abcdef" + b"*" * len(secret)


def test_a_lease_that_is_renewed_while_the_clock_is_looked_at_is_not_ended(fleet: Fleet, clock: Any) -> None:
    run = run_of(fleet, running(fleet))
    before = clock() + timedelta(seconds=310)
    report.renew_lease(fleet, run)
    with fleet.engine.begin() as conn:
        assert not runs.expire(conn, run.id, clock() + timedelta(seconds=299))
        assert runs.expire(conn, run.id, before)

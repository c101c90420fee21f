"""Hosts that do not answer: they hold up no other host, their runs are kept for a grace, and expire after it."""

import os
from collections.abc import Callable
from pathlib import Path

from app.domain.host import Fitness
from app.domain.task import State
from app.ports import Fleet
from app.services.dispatch import host_health
from app.store import host_polls
from tests.hosts import LocalHost
from tests.patience import wait_until
from workers.hosts.local import install
from workers.runs import poll
from workers.worker import Limits, Worker


class BlackHole:
    """Makes every request to a host hang: its supervisor is a pipe that nobody writes to."""

    def __init__(self, here: LocalHost, host_id: str) -> None:
        self.path = install(str(here.place / host_id))
        self.path.unlink()
        os.mkfifo(self.path)
        here.worker.hosts.local.close()

    def end(self) -> None:
        """Requests that hang get an empty supervisor; later ones get none."""
        pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self.path.unlink()
        os.close(pipe)


def failing_since(here: LocalHost, host_id: str) -> object:
    with here.fleet.engine.begin() as conn:
        row = host_polls.of(conn, host_id)
    return row and row["failing_since"]


def test_a_host_that_hangs_holds_up_no_other_and_is_polled_by_one_worker(
    host: Callable[..., LocalHost], make_worker: Callable[..., Worker]
) -> None:
    here = host("sleep 600", hosts=2)
    first, second = here.task(1), here.task(2)
    deaf, well = here.run(first).host_id or "", here.run(second).host_id or ""
    assert deaf != well
    hole = BlackHole(here, deaf)
    ours, theirs = here.worker, make_worker(here.fleet)
    here.clock.pass_(20)
    poll.poll_due(ours)
    polls = ours.poll_threads.polls
    polls[well].result()
    assert [name for name, one in polls.items() if not one.done()] == [deaf]
    here.clock.pass_(2)
    poll.poll_due(ours)  # holds on to the host that our thread still polls
    if well in ours.poll_threads.polls:
        ours.poll_threads.polls[well].result()
    here.clock.pass_(9)
    assert poll.poll_due(theirs) == 0
    assert set(theirs.poll_threads.polls) == {well}
    hole.end()
    ours.poll_threads.polls[deaf].result()
    assert failing_since(here, deaf) and not failing_since(here, well)


def test_a_start_that_hangs_holds_up_no_other_host(host: Callable[..., LocalHost]) -> None:
    here = host("sleep 600", hosts=2, limits=Limits(start_wait_secs=0.5))
    hole = BlackHole(here, "h0")
    first, second = here.task(1), here.task(2)
    assert (here.run(first).host_id, here.state(first).state) == ("h0", State.ASSIGNED)
    assert here.run(second).host_id == "h1"
    wait_until(lambda: here.state(second).state is State.RUNNING, "the start on the other host")
    hole.end()
    threads = here.worker.start_threads
    here.until(lambda: threads.free() == threads.size, "the end of the request")


def test_the_run_of_a_host_that_is_away_expires_after_a_grace_and_its_log_is_collected_when_it_is_back(
    host: Callable[..., LocalHost], tmp_path: Path
) -> None:
    here = host(f"echo before; until [ -e {tmp_path}/go ]; do sleep 0.02; done; seq 1 3000")
    task = here.task()
    here.until(lambda: here.log(task) == b"before\n", "its first word")
    path = install(str(here.place / "h0"))
    path.rename(path.with_suffix(".away"))
    here.worker.hosts.local.close()
    here.pass_time(290)
    assert here.state(task).state is State.RUNNING
    here.pass_time(40)
    assert here.run(task).end == "expired"
    assert failing_since(here, "h0")
    path.with_suffix(".away").rename(path)
    (tmp_path / "go").touch()
    run = here.until(lambda: (run := here.run(task)).result and run, "the host, back")
    assert (run.end, run.result["end"]) == ("expired", "finished")
    assert here.log(task) == (here.folder(task) / "stdout.log").read_bytes()
    assert here.state(task).state is not State.COMPLETED


def test_runs_of_a_quarantined_host_are_kept_until_an_operator_resumes_it_or_the_grace_ends(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo done"
    here = host(wait, fleet=make_fleet(FLEET_HOST_GRACE_SECS="30", FLEET_QUARANTINE_GRACE_SECS="100"))
    task = here.task()
    here.poll()
    host_health.quarantine(here.fleet, "h0", "host key changed")
    here.pass_time(60)
    assert here.state(task).state is State.RUNNING
    host_health.set_fitness(here.fleet, "h0", Fitness.UNKNOWN, None)
    (tmp_path / "go").touch()
    assert here.ended(task).end == "finished"
    (tmp_path / "go").unlink()
    given_up = here.task(13)
    here.poll()
    host_health.quarantine(here.fleet, "h0", "host key changed")
    here.pass_time(200)
    assert here.run(given_up).end == "expired"

"""Polls of a real host: logs arrive byte for byte, and each run ends once."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.domain.host import Fitness
from app.domain.task import State
from app.ports import Fleet
from app.services.runs import expiry, report
from app.store import hosts
from tests.hosts import LocalHost
from workers.hosts.client import HostClient
from workers.runs.finish import finish
from workers.worker import Limits

SECRET = "s3cret-of-the-test-0123456789"
SMALL_POLLS = Limits(poll_bytes=50_000)


def test_a_run_is_followed_to_its_end_and_its_log_equals_that_of_the_host(host: Callable[..., LocalHost]) -> None:
    here = host("seq 1 20000; echo trouble >&2; printf '\\377\\000 no text'")
    task = here.task()
    run = here.ended(task)
    assert (run.end, here.state(task).state) == ("finished", State.COMPLETED)
    assert here.log(task) == (here.folder(task) / "stdout.log").read_bytes()
    assert here.log(task, stream="stderr") == b"trouble\n"
    here.assert_history_holds()


def printed(here: LocalHost, task: int) -> bytes:
    """All that its CLI printed, once it has ended, and before it is polled."""
    here.wait_for(here.folder(task) / "result.json")
    return (here.folder(task) / "stdout.log").read_bytes()


def test_one_poll_fetches_all_of_a_long_output_piece_by_piece(host: Callable[..., LocalHost]) -> None:
    here = host("seq 1 300000", limits=SMALL_POLLS)
    task = here.task()
    whole = printed(here, task)
    here.poll()
    is_all_here = here.log(task) == whole  # a diff would take minutes to print
    assert is_all_here and here.state(task).state is State.COMPLETED


class Watched(HostClient):
    """Tells the test of each poll that was answered."""

    def __init__(self, fleet: Fleet, on_poll: Callable[[Any], None]) -> None:
        super().__init__(Path(), fleet.instance)
        self._on_poll = on_poll

    def request(self, machine: Any, verb: str, body: Any) -> Any:
        answer = super().request(machine, verb, body)
        if verb == "poll":
            self._on_poll(body)
        return answer


def test_output_that_another_worker_stored_meanwhile_is_stored_once(
    fleet: Fleet, host: Callable[..., LocalHost]
) -> None:
    offsets: list[int] = []

    def store_some(body: Any) -> None:
        offsets.append(body["runs"][0]["stdout"])
        if len(offsets) == 1:
            report.log(here.fleet, here.run(task), "stdout", 0, whole[:60_000], True, True)

    here = host("seq 1 30000", limits=SMALL_POLLS, client=Watched(fleet, store_some))
    task = here.task()
    whole = printed(here, task)
    here.poll()
    assert here.run(task).stdout_size == 60_000, "the prefetched answer does not follow"
    here.ended(task)
    is_all_here = here.log(task) == whole
    assert is_all_here and 60_000 in offsets


def test_a_secret_printed_in_two_halves_is_never_stored(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    first, second = SECRET[:11], SECRET[11:]
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    here = host(f"printf 'key: {first}'; {wait}; printf '{second} done, s3c'", fleet=make_fleet(SOME_TOKEN=SECRET))
    task = here.task()
    here.until(lambda: here.log(task) == b"key: ", "the first half")
    here.poll()
    assert here.log(task) == b"key: "
    (tmp_path / "go").touch()
    here.ended(task)
    assert here.log(task) == b"key: " + b"*" * len(SECRET) + b" done, s3c"


def test_the_middle_of_an_output_beyond_the_limit_is_dropped(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet]
) -> None:
    here = host("head -c 9000000 /dev/zero | tr '\\0' a; echo the end", fleet=make_fleet(FLEET_LOG_LIMIT_MB="2"))
    task = here.task()
    run = here.ended(task)
    said = here.log(task)
    assert run.stdout_size == 9_000_008
    assert len(said) < 3 << 20
    assert said[: 1 << 20] == b"a" * (1 << 20)
    assert b"bytes left out" in said and said.endswith(b"the end\n")


def test_a_run_without_a_supervisor_is_lost_and_its_task_is_retried(host: Callable[..., LocalHost]) -> None:
    here = host("sleep 600")
    task = here.task()
    os.kill(here.file(task, "state.json")["pid"], signal.SIGKILL)
    run = here.ended(task)
    assert (run.end, (run.result or {})["reason"]) == ("lost", "the supervisor died")
    assert (here.state(task).state, here.state(task).reason) == (State.AGENT_LOST, "lost")
    expiry.expire_and_wake(here.fleet)
    assert (here.state(task).state, here.state(task).retry_count) == (State.CREATED, 1)
    here.assert_history_holds()


def test_a_control_plane_that_was_away_adopts_runs_that_finished_meanwhile(host: Callable[..., LocalHost]) -> None:
    here = host("echo done")
    task = here.task()
    here.file(task, "result.json")
    here.clock.pass_(3600)
    expiry.expire_and_wake(here.fleet)  # without a poll, silence says nothing
    assert here.state(task).state is State.RUNNING
    here.ended(task)
    assert here.state(task).state is State.COMPLETED


def test_processes_that_survive_every_signal_drain_the_host(host: Callable[..., LocalHost]) -> None:
    here = host("true")
    task = here.task()
    result = here.file(task, "result.json") | {"survivors": [{"pid": 4711, "command": "zombie --maker"}]}
    assert finish(here.worker, here.run(task), result)
    with here.fleet.engine.begin() as conn:
        machine = hosts.machine(conn, "h0")
    assert machine is not None and machine.fitness in (Fitness.DRAINING, Fitness.DRAINED)
    assert "4711 (zombie --maker)" in (machine.why or "")

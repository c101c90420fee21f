"""Looks at real hosts: logs byte for byte, ends told once, and what a host that is lost or deaf does to the others."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.host import Fitness
from app.domain.task import State
from app.ports import Fleet
from app.services.dispatch import host_health
from app.services.runs import expiry, report
from app.store import host_polls as store
from app.store import hosts
from tests.hosts import LocalHost
from tests.patience import patient
from workers.hosts import client, local
from workers.runs import outbox_threads, poll
from workers.runs.start_stop import finish
from workers.runs.threads import EACH, Crew

SECRET = "s3cret-of-the-test-0123456789"


@pytest.fixture
def host(fleet: Fleet, clock: Any, tmp_path: Path) -> Iterator[Callable[..., LocalHost]]:
    """Makes the host whose CLI is a script."""
    made: list[LocalHost] = []

    def make(script: str, **given: Any) -> LocalHost:
        made.append(LocalHost(given.pop("fleet", fleet), clock, tmp_path / "hosts", script, **given))
        return made[-1]

    yield make
    for one in made:
        one.end_all()


def test_a_run_is_followed_to_its_end_and_its_log_is_the_hosts_own(host: Callable[..., LocalHost]) -> None:
    here = host("seq 1 20000; echo trouble >&2; printf '\\377\\000 no text'")
    task = here.task()
    run = here.ended(task)
    assert (run["end"], here.state(task).state) == ("finished", State.COMPLETED)
    assert here.log(task) == (here.folder(task) / "stdout.log").read_bytes()
    assert here.log(task, stream="stderr") == b"trouble\n"
    here.assert_history_holds()


def printed(here: LocalHost, task: int) -> bytes:
    """All that its CLI printed, once it has ended; nobody has looked yet."""
    here.wait_for(here.folder(task) / "result.json")
    return (here.folder(task) / "stdout.log").read_bytes()


def test_one_look_brings_all_of_a_long_output_piece_by_piece(
    host: Callable[..., LocalHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "PIECE", 50_000)
    here = host("seq 1 300000")
    task = here.task()
    whole = printed(here, task)
    here.look()
    is_all_here = here.log(task) == whole  # what differs would take minutes to show
    assert is_all_here and here.state(task).state is State.COMPLETED


def test_what_somebody_else_has_stored_meanwhile_is_stored_once(
    host: Callable[..., LocalHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "PIECE", 50_000)
    here = host("seq 1 30000")
    task = here.task()
    whole, ask, polls = printed(here, task), client.ask, list[int]()

    def and_meanwhile(on: Any, verb: str, request: Any) -> Any:
        answer = ask(on, verb, request)
        if verb == "poll":
            polls.append(request["runs"][0]["stdout"])
            if len(polls) == 1:
                report.log(here.fleet, here.run(task), "stdout", 0, whole[:60_000], True, True)
        return answer

    monkeypatch.setattr(client, "ask", and_meanwhile)
    here.look()
    assert here.run(task)["stdout_size"] == 60_000, "what was asked for ahead is not what comes next"
    here.ended(task)
    is_all_here = here.log(task) == whole
    assert is_all_here and 60_000 in polls


def test_a_secret_printed_in_two_halves_is_never_stored(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    first, second = SECRET[:11], SECRET[11:]
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    here = host(f"printf 'key: {first}'; {wait}; printf '{second} done, s3c'", fleet=make_fleet(SOME_TOKEN=SECRET))
    task = here.task()
    here.until(lambda: here.log(task) == b"key: ", "the first half")
    here.look()
    assert here.log(task) == b"key: "
    (tmp_path / "go").touch()
    here.ended(task)
    assert here.log(task) == b"key: " + b"*" * len(SECRET) + b" done, s3c"


def test_output_beyond_the_limit_is_left_out_in_the_middle(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet]
) -> None:
    here = host("head -c 9000000 /dev/zero | tr '\\0' a; echo the end", fleet=make_fleet(FLEET_LOG_LIMIT_MB="2"))
    task = here.task()
    run = here.ended(task)
    said = here.log(task)
    assert run["stdout_size"] == 9_000_008
    assert len(said) < 3 << 20
    assert said[: 1 << 20] == b"a" * (1 << 20)
    assert b"bytes left out" in said and said.endswith(b"the end\n")


def test_a_dead_supervisor_is_lost_with_that_reason_and_the_task_tried_again(host: Callable[..., LocalHost]) -> None:
    here = host("sleep 600")
    task = here.task()
    os.kill(here.file(task, "state.json")["pid"], signal.SIGKILL)
    run = here.ended(task)
    assert (run["end"], run["result"]["reason"]) == ("lost", "the supervisor died")
    assert (here.state(task).state, here.state(task).reason) == (State.AGENT_LOST, "lost")
    expiry.rescue(here.fleet)
    assert (here.state(task).state, here.state(task).retry_count) == (State.CREATED, 1)
    here.assert_history_holds()


def test_a_control_plane_that_was_away_adopts_what_finished_meanwhile(host: Callable[..., LocalHost]) -> None:
    here = host("echo done")
    task = here.task()
    here.file(task, "result.json")
    here.clock.pass_(3600)
    expiry.rescue(here.fleet)  # nobody looked: that silence says nothing
    assert here.state(task).state is State.RUNNING
    here.ended(task)
    assert here.state(task).state is State.COMPLETED


def test_processes_that_no_signal_ends_drain_the_host(host: Callable[..., LocalHost]) -> None:
    here = host("true")
    task = here.task()
    result = here.file(task, "result.json") | {"survivors": [{"pid": 4711, "command": "zombie --maker"}]}
    assert finish(here.fleet, here.run(task), result)
    with here.fleet.engine.begin() as conn:
        row = hosts.host(conn, "h0")
    assert row is not None and row["fitness"] in (Fitness.DRAINING, Fitness.DRAINED)
    assert "4711 (zombie --maker)" in row["why"]


class BlackHole:
    """Makes every call of a host hang: its supervisor is a pipe that nobody writes to."""

    def __init__(self, home: Path) -> None:
        self.path = local.copied(str(home))
        self.path.unlink()
        os.mkfifo(self.path)
        local.forget()

    def end(self) -> None:
        """Whoever waits is told that there is nothing, and whoever comes back that it is gone."""
        pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self.path.unlink()
        os.close(pipe)


def test_a_black_hole_holds_up_no_other_host_and_is_looked_at_by_one(host: Callable[..., LocalHost]) -> None:
    here = host("sleep 600", hosts=2)
    first, second = here.task(1), here.task(2)
    deaf, well = here.run(first)["host_id"], here.run(second)["host_id"]
    assert deaf != well
    hole = BlackHole(here.place / deaf)
    ours, theirs = Crew(4), Crew(4)
    here.clock.pass_(20)
    poll.look(here.fleet, ours)
    ours.at_work[well].result()
    assert [name for name, look in ours.at_work.items() if not look.done()] == [deaf]
    here.clock.pass_(2)
    poll.look(here.fleet, ours)  # renews what our thread is still at
    if well in ours.at_work:
        ours.at_work[well].result()
    here.clock.pass_(9)
    assert poll.look(here.fleet, theirs) == 0
    assert set(theirs.at_work) == {well}
    hole.end()
    ours.at_work[deaf].result()
    with here.fleet.engine.begin() as conn:
        rows = {name: store.of(conn, name) for name in (deaf, well)}
    assert rows[deaf]["failing_since"] and not rows[well]["failing_since"]  # type: ignore[index]


def test_a_start_that_hangs_holds_up_no_other_host(
    host: Callable[..., LocalHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runs.start_stop.WAIT_SECS", 0.5)
    here = host("sleep 600", hosts=2)
    hole = BlackHole(here.place / "h0")
    first, second = here.task(1), here.task(2)
    assert (here.run(first)["host_id"], here.state(first).state) == ("h0", State.ASSIGNED)
    assert (here.run(second)["host_id"], here.state(second).state) == ("h1", State.RUNNING)
    hole.end()
    here.until(lambda: outbox_threads.crew.free() == outbox_threads.SIZE, "the end of the call")


def test_one_host_has_at_most_its_share_of_those_who_pay() -> None:
    crew = outbox_threads.OutboxThreads(4, 2)
    with crew.at("a"), crew.at("a"), crew.at("b"), pytest.raises(outbox_threads.Busy), crew.at("a"):
        pass
    with crew.at("a"):
        pass


def test_an_unreachable_host_is_unknown_for_a_grace_then_its_run_is_lost_and_heard_of_when_it_is_back(
    host: Callable[..., LocalHost], tmp_path: Path
) -> None:
    here = host(f"echo before; until [ -e {tmp_path}/go ]; do sleep 0.02; done; seq 1 3000")
    task = here.task()
    here.until(lambda: here.log(task) == b"before\n", "its first word")
    path = local.copied(str(here.place / "h0"))
    path.rename(path.with_suffix(".away"))
    local.forget()
    here.rescue(290)
    assert here.state(task).state is State.RUNNING
    here.rescue(40)
    assert here.run(task)["end"] == "expired"
    with here.fleet.engine.begin() as conn:
        row = store.of(conn, "h0")
    assert row is not None and row["failing_since"] is not None
    path.with_suffix(".away").rename(path)
    (tmp_path / "go").touch()
    run = here.until(lambda: (run := here.run(task))["result"] and run, "the host, back")
    assert (run["end"], run["result"]["end"]) == ("expired", "finished")
    assert here.log(task) == (here.folder(task) / "stdout.log").read_bytes()
    assert here.state(task).state is not State.COMPLETED


def test_runs_of_a_host_in_quarantine_are_kept_for_whoever_looks_at_it(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo done"
    here = host(wait, fleet=make_fleet(FLEET_HOST_GRACE_SECS="30", FLEET_QUARANTINE_GRACE_SECS="100"))
    task = here.task()
    here.look()
    host_health.distrusted(here.fleet, "h0", "host key changed")
    here.rescue(60)
    assert here.state(task).state is State.RUNNING
    host_health.set_fitness(here.fleet, "h0", Fitness.UNKNOWN, None)
    (tmp_path / "go").touch()
    assert here.ended(task)["end"] == "finished"
    (tmp_path / "go").unlink()
    given_up = here.task(13)
    here.look()
    host_health.distrusted(here.fleet, "h0", "host key changed")
    here.rescue(200)
    assert here.run(given_up)["end"] == "expired"


def test_threads_are_bounded_and_those_that_do_not_answer_get_few(fleet: Fleet) -> None:
    crew = Crew(8)
    gate = threading.Event()
    crew.at_work = {f"h{n}": crew._threads.submit(lambda: int(gate.wait(patient(30)))) for n in range(3)}
    crew.in_vain = {"h0", "h1"}
    assert (crew.free(failing=False), crew.free(failing=True)) == (8 * EACH - 3, 0)
    gate.set()
    for look in crew.at_work.values():
        look.result()
    assert (crew.free(failing=False), crew.free(failing=True)) == (8 * EACH, 2)

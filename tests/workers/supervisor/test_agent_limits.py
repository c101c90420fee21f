"""A CLI is ended at its limits: wall clock, silence, a final event without exit."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from tests.patience import wait_until
from tests.workers.supervisor.host import Host, is_running
from workers.supervisor.agent import AgentLimits

LIMITS = {"wall_secs": 100, "silence_secs": 10, "final_secs": 3}


class Scene:
    """The limits of one CLI with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stdout, self.final_event = SimpleNamespace(size=0), SimpleNamespace(seen_at=None)
        self.watch = SimpleNamespace(stop_reason=None)
        job: Any = SimpleNamespace(watch=self.watch, limits=LIMITS)
        logs: Any = [self.stdout, SimpleNamespace(size=0)]
        event: Any = self.final_event
        notes: Any = SimpleNamespace(update=lambda: None)
        self._limits = AgentLimits(job, logs, event, notes, clock=lambda: self.now)

    def check(self, now: float, size: int = 0) -> str | None:
        self.now, self.stdout.size = now, size
        return self._limits.check()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_silence_ends_it_and_output_begins_the_time_again(scene: Scene) -> None:
    assert scene.check(10) is None
    assert scene.check(11, size=5) is None
    assert scene.check(21, size=5) is None
    assert scene.check(22, size=5) == "silent"


def test_the_wall_clock_ends_it_however_much_it_prints(scene: Scene) -> None:
    assert [scene.check(second, size=second) for second in range(0, 101, 5)] == [None] * 21
    assert scene.check(100.1, size=101) == "timed_out"


def test_a_final_event_ends_it_unless_it_continues(scene: Scene) -> None:
    scene.final_event.seen_at = 1.0
    assert scene.check(4) is None
    assert scene.check(4.1) == "hung"
    scene.final_event.seen_at = None
    assert scene.check(4.2) is None


def test_a_cancel_comes_before_every_limit(scene: Scene) -> None:
    scene.watch.stop_reason = "cancelled"
    assert scene.check(1000) == "cancelled"


def test_a_run_ends_at_the_wall_clock(host: Host) -> None:
    host.start("while :; do echo busy; sleep 0.05; done", limits={"wall_secs": 0.6})
    result = host.result()
    assert (result["end"], result["signal"]) == ("timed_out", signal.SIGTERM)
    assert not is_running(host.state()["agent_pid"])


def test_a_silent_run_ends(host: Host) -> None:
    host.start("echo hello; sleep 60", limits={"silence_secs": 0.3})
    assert host.result()["end"] == "silent"


def test_processes_that_the_agent_leaves_running_end_with_it(host: Host) -> None:
    host.start("sleep 60 & echo $!")
    assert host.result()["end"] == "finished"
    assert not is_running(int(host.log()))


def test_the_supervisor_beats_while_the_agent_works(host: Host) -> None:
    host.start("sleep 60")
    host.agent_state()
    heartbeat = host.folder() / "heartbeat"
    first = heartbeat.stat().st_mtime_ns
    wait_until(lambda: heartbeat.stat().st_mtime_ns > first, "the next heartbeat")
    assert host.poll()["beat_age"] >= 0

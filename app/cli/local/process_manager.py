"""Manages child processes: starts them in order, restarts those that die, stops them all."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

DEATHS_ALLOWED = 5
WITHIN_SECS = 60.0
STOP_SECS = 15.0
FIRST_PAUSE_SECS = 0.05
PR_SET_PDEATHSIG = 1


class ProcessFailed(Exception):
    """A child process does not start or dies too often: its name, and the path of its log."""

    def __init__(self, name: str, sentence: str, log: Path | None) -> None:
        super().__init__(sentence)
        self.name, self.log = name, log


@dataclass
class ChildProcess:
    """A process to manage: how to start it, how to stop it, and its deaths (monotonic seconds).

    `ready` tells when it serves. `user` is the uid to run as. Without `log` it writes to our stderr. A process that
    `serves` others stops after them.
    """

    name: str
    argv: list[str]
    env: Mapping[str, str] | None = None
    stop_signal: str = "SIGTERM"
    user: int | None = None
    serves: bool = False
    log: Path | None = None
    ready: Callable[[], bool] = lambda: True
    process: "subprocess.Popen[bytes] | None" = None
    stop_requested: bool = False
    deaths: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.stop_requested = False
        number = getattr(signal, self.stop_signal)
        out = self.log.open("ab") if self.log else None
        try:
            self.process = subprocess.Popen(
                self.argv, env=self.env, user=self.user, group=self.user, extra_groups=[] if self.user else None,
                stdin=subprocess.DEVNULL, stdout=out or sys.stderr, stderr=out or sys.stderr, start_new_session=True,
                preexec_fn=lambda: _die_with_parent(number),  # noqa: PLW1509 - a manager has one thread
                cwd="/" if self.user else None,
            )  # fmt: skip
        finally:
            if out:
                out.close()

    def is_dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def request_stop(self) -> None:
        """Send the stop signal once: a second one would interrupt an orderly stop."""
        if self.process is not None and not self.is_dead() and not self.stop_requested:
            self.stop_requested = True
            self.process.send_signal(getattr(signal, self.stop_signal))

    def stop(self, within: float = STOP_SECS) -> None:
        """Request a stop, wait `within` seconds, then kill the process and the rest of its group."""
        if self.process is None:
            return
        self.request_stop()
        try:
            self.process.wait(max(within, 0))
        except subprocess.TimeoutExpired:
            self.kill_group()
        self.kill_group()
        self.process.wait()

    def kill_group(self) -> None:
        """Kill what the process left behind. The group is its own: it was started as a session leader."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return


class ProcessManager:
    """The child processes of one command. As a context manager, it stops all of them at the end."""

    def __init__(self) -> None:
        self.children: list[ChildProcess] = []
        self.stopping = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "ProcessManager":
        self._before = {
            sig: signal.signal(sig, self._asked_to_stop) for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for sig, handler in self._before.items():
            signal.signal(sig, handler)

    def add(self, child: ChildProcess, within: float = 30.0) -> ChildProcess:
        """Start a child and wait until it is ready. Raises ProcessFailed."""
        self.children.append(child)
        child.start()
        until = time.monotonic() + within
        while not (child.ready() and not child.is_dead()):
            if self.stopping:
                raise KeyboardInterrupt
            if child.is_dead():
                raise ProcessFailed(child.name, f"{child.name} ended while it was starting.", child.log)
            if time.monotonic() > until:
                raise ProcessFailed(child.name, f"{child.name} was not ready within {within:.0f} s.", child.log)
            time.sleep(0.02)
        return child

    def restart_dead(self) -> list[str]:
        """Restart dead processes, with a longer pause after each death; return the names of those restarted.

        Raises ProcessFailed when one dies too often.
        """
        now = time.monotonic()
        return [child.name for child in self.children if child.is_dead() and self._start_again(child, now)]

    def _start_again(self, child: ChildProcess, now: float) -> bool:
        if child.process is not None:
            child.kill_group()
            child.process = None
            child.deaths = [at for at in child.deaths if now - at < WITHIN_SECS] + [now]
        if len(child.deaths) > DEATHS_ALLOWED:
            raise ProcessFailed(child.name, f"{child.name} died {len(child.deaths)} times within a minute.", child.log)
        if now - child.deaths[-1] < FIRST_PAUSE_SECS * 2 ** len(child.deaths):
            return False
        child.start()
        return True

    def run_until_stopped(self) -> None:
        """Restart dead processes until a signal asks to stop. Raises ProcessFailed."""
        while not self.stopping:
            for name in self.restart_dead():
                print(f"fleet: {name} died and was restarted", file=sys.stderr, flush=True)
            time.sleep(0.25)

    def stop(self) -> None:
        """Stop all processes at once; after them, those that serve the others."""
        self.stopping = True
        for serves in (False, True):
            these = [child for child in self.children if child.serves == serves]
            until = time.monotonic() + STOP_SECS
            for child in these:
                child.request_stop()
            for child in these:
                child.stop(until - time.monotonic())

    def _asked_to_stop(self, number: int, _: FrameType | None) -> None:
        if self.stopping:
            return
        self.stopping = True
        if number == signal.SIGINT:
            print("\nfleet: stopping (runs on hosts go on)", file=sys.stderr, flush=True)


def last_lines(path: Path | None, count: int = 15) -> list[str]:
    """The last lines of a log; none without a log."""
    if path is None or not path.exists():
        return []
    return path.read_bytes()[-20_000:].decode(errors="replace").splitlines()[-count:]


def _die_with_parent(number: int) -> None:
    """Make the kernel send `number` when the parent dies. Linux only; elsewhere it does nothing."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, number)


_LIBC = ctypes.CDLL(None)

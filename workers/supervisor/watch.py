"""Waits for children, logs and signals in one place, and ends what has to be ended."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time

from workers.supervisor.constants import END_REASONS, TYPE_CHECKING, WAIT_SECS
from workers.supervisor.errors import RunEnded
from workers.supervisor.processes import reap_orphans
from workers.supervisor.procfs import descendants, describe_process, send_signal, session_members

if TYPE_CHECKING:
    from typing import Callable

    from workers.supervisor.constants import Json
    from workers.supervisor.files import Lock
    from workers.supervisor.logs import Log
    from workers.supervisor.processes import Child

    StopCheck = Callable[[], str | None]  # returns why a child has to be ended now, or None

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20


class Watch:
    """Waits for children while it writes the heartbeat and logs; wakes when a child exits or a cancel arrives."""

    def __init__(self, heartbeat: str | None = None, beat_secs: float = 5) -> None:
        self.stop_reason: str | None = None
        self.stopped_at = 0.0
        self.survivors: list[Json] = []  # processes that no signal ended
        self.excluded: list[int] = []  # children that are no part of the run
        self._logs: dict[int, Log] = {}
        self._heartbeat, self._beat_secs, self._next_beat = heartbeat, beat_secs, 0.0
        self._wakeup, wakeup_end = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup_end, False)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        self._beat()

    def _stop(self, *_: object) -> None:
        self.stopped_at, self.stop_reason = time.monotonic(), "cancelled"

    def raise_if_cancelled(self) -> None:
        """Raises RunEnded after a SIGTERM."""
        if self.stop_reason:
            raise RunEnded("cancelled", END_REASONS["cancelled"])

    def wait(self, secs: float, *pipes: int) -> list[int]:
        """Sleep until a signal, output or a pipe wakes us, at most so long. Return the pipes with something to read."""
        self._beat()
        secs = min(secs, self._next_beat - time.monotonic()) if self._heartbeat else secs
        ready = select.select([self._wakeup, *self._logs, *pipes], [], [], max(0.0, secs))[0]
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        for pipe in ready:
            if pipe in self._logs:
                self._copy_to_log(pipe)
        return [pipe for pipe in ready if pipe in pipes]

    def _beat(self) -> None:
        now = time.monotonic()
        if self._heartbeat and now >= self._next_beat:
            os.close(os.open(self._heartbeat, os.O_WRONLY | os.O_CREAT, 0o600))
            os.utime(self._heartbeat)
            self._next_beat = now + self._beat_secs

    def acquire(self, lock: Lock, secs: float) -> bool:
        """Wait for a lock, at most so long. Return True if it is held now. Raises RunEnded after a cancel."""
        until = time.monotonic() + secs
        while not lock.acquire():
            self.raise_if_cancelled()
            if time.monotonic() > until:
                return False
            self.wait(0.01)
        return True

    def pipe_to(self, log: Log) -> int:
        """Return the write end of a new pipe. What is written there goes to the log while this process waits."""
        read_end, write_end = os.pipe()
        try:
            fcntl.fcntl(read_end, F_SETPIPE_SZ, PIPE_BYTES)  # fewer wake-ups
        except OSError:
            pass
        os.set_blocking(read_end, False)
        self._logs[read_end] = log
        return write_end

    def close_pipes(self) -> None:
        """Copy the rest of each pipe to its log, after the programs have ended."""
        for pipe in list(self._logs):
            while self._copy_to_log(pipe):
                pass
            if self._logs.pop(pipe, None):
                os.close(pipe)

    def _copy_to_log(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, PIPE_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._logs[pipe].write(data)
        else:  # no process has the other end open
            del self._logs[pipe]
            os.close(pipe)
        return bool(data)

    def wait_for_end(self, child: Child, check: StopCheck, grace: Callable[[], float]) -> str | None:
        """Wait until the child exits or the check gives a reason to end it. Return that reason.

        In both cases everything that it started is ended.
        """
        reason = None
        try:
            while not child.has_ended() and not reason:
                self.wait(0.5)
                reap_orphans(child)
                reason = None if child.has_ended() else check()
        finally:
            self.terminate(child, grace())
        return reason

    def terminate(self, child: Child, grace: float) -> None:
        """Send SIGTERM to all processes below this one, SIGKILL after `grace` s. Note those that live on."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, WAIT_SECS)):
            until = time.monotonic() + patience
            send_signal(number, self._members(child))
            while not child.has_ended() or self._members(child):
                if time.monotonic() > until:
                    break
                self.wait(0.02)
                if number == signal.SIGKILL:  # also to processes started since
                    send_signal(number, self._members(child))
            else:
                return
        self.survivors += [describe_process(pid) for pid in self._members(child)]

    def _members(self, child: Child) -> list[int]:
        """Return each living process to end. A subreaper has also inherited those that left session and parent."""
        reap_orphans(child)
        kept = {os.getpid(), *(descendants(self.excluded) if self.excluded else ())}
        return [pid for pid in {*session_members(child.pid), *descendants([os.getpid()])} if pid not in kept]

    def read_output(self, child: Child, pipes: list[int], check: StopCheck) -> tuple[str | None, list[bytes]]:
        """Wait for a child that writes to pipes. Return why it was ended, if it was, and the output of each pipe."""
        output, open_pipes, reason = dict.fromkeys(pipes, b""), list(pipes), None
        while not child.has_ended() and not reason:
            self._read_ready(output, open_pipes, 0.5)
            reason = None if child.has_ended() else check()
        if reason:
            self.terminate(child, 2)
        while self._read_ready(output, open_pipes, 0):
            pass
        for pipe in pipes:
            os.close(pipe)
        return reason, list(output.values())

    def _read_ready(self, output: dict[int, bytes], open_pipes: list[int], secs: float) -> bool:
        ready = self.wait(secs, *open_pipes)
        for pipe in ready:
            data = os.read(pipe, 1 << 20)
            output[pipe] += data
            if not data:
                open_pipes.remove(pipe)
        return bool(ready)


def timeout_after(moment: float) -> str | None:
    """Return `timed_out` once that moment of the monotonic clock has passed."""
    return "timed_out" if time.monotonic() > moment else None

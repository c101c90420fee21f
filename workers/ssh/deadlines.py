"""Deadlines: one thread closes the connections whose step takes too long.

paramiko blocks forever in places that none of its own timeouts covers: a write to a full socket, the answer to a
channel request. Closing the connection wakes the blocked thread.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()


class Deadline:
    """A step that must be done by `at`; otherwise `expire` calls `end`."""

    def __init__(self, at: float, end: Callable[[], None]) -> None:
        self.at, self._end, self._lock = at, end, threading.Lock()
        self.is_late = False
        self._is_done = False

    def done(self) -> None:
        with self._lock:
            self._is_done = True

    def expire(self) -> None:
        with self._lock:
            if not self._is_done:
                self.is_late = True
                self._end()


class Deadlines:
    """Open deadlines, earliest first, and the thread that waits for the next one."""

    def __init__(self) -> None:
        self._open: list[tuple[float, int, Deadline]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def within(self, secs: float, end: Callable[[], None]) -> Iterator[Deadline]:
        """Call `end` from another thread if the block takes longer than `secs`. `end` must not block."""
        deadline = Deadline(time.monotonic() + secs, end)
        self._add(deadline)
        try:
            yield deadline
        finally:
            deadline.done()

    def close(self) -> None:
        """End the thread. Open deadlines do not expire any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _add(self, deadline: Deadline) -> None:
        with self._changed:
            heapq.heappush(self._open, (deadline.at, next(self._number), deadline))
            if self._thread is None:
                self._thread = threading.Thread(target=self._expire_all, name="deadlines", daemon=True)
                self._thread.start()
            if self._open[0][2] is deadline:
                self._changed.notify()

    def _expire_all(self) -> None:
        while deadline := self._wait_for_next():
            try:
                deadline.expire()
            except Exception:  # the next deadlines still count
                log.exception("a connection that took too long could not be closed")

    def _wait_for_next(self) -> Deadline | None:
        """The earliest deadline, once its time has come; None after `close`."""
        with self._changed:
            while not self._is_closed:
                wait = self._open[0][0] - time.monotonic() if self._open else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._open)[2]
                self._changed.wait(wait)
        return None

"""Ends what is late: one thread a process that closes the connections whose step took longer than it may.

paramiko waits for ever in places that no timeout of its own reaches: a write to a full socket, the answer to a request
on a channel. Whoever waits there is woken by the end of the connection.
"""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog


class Step:
    """Something that has to be done by `at`, else `end` is called. `is_late` says that it was."""

    def __init__(self, at: float, end: Callable[[], None]) -> None:
        self.at, self._end, self.is_late, self._lock = at, end, False, threading.Lock()
        self._over = False

    def done(self) -> None:
        with self._lock:
            self._over = True

    def late(self) -> None:
        with self._lock:
            if not self._over:
                self.is_late = True
                self._end()


class Deadlines:
    """Steps in the order of their deadlines, and the thread that waits for the next one."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, int, Step]] = []
        self._number = itertools.count()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, secs: float, end: Callable[[], None]) -> Iterator[Step]:
        """`end` is called, from another thread, if the block takes longer than `secs`; it must not wait."""
        step = Step(time.monotonic() + secs, end)
        self._add(step)
        try:
            yield step
        finally:
            step.done()

    def _add(self, step: Step) -> None:
        with self._news:
            heapq.heappush(self._steps, (step.at, next(self._number), step))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            if self._steps[0][2] is step:
                self._news.notify()

    def _watch(self) -> None:
        while True:
            step = self._next()
            try:
                step.late()
            except Exception:  # the next steps have deadlines too
                structlog.get_logger().exception("what was late could not be ended")

    def _next(self) -> Step:
        """The first step, once its time has come."""
        with self._news:
            while not self._steps or self._steps[0][0] > time.monotonic():
                self._news.wait(self._steps[0][0] - time.monotonic() if self._steps else None)
            return heapq.heappop(self._steps)[2]


watch = Deadlines()


def _after_fork() -> None:
    """The child has none of its parent's threads."""
    global watch  # noqa: PLW0603 - one a process
    watch = Deadlines()


os.register_at_fork(after_in_child=_after_fork)

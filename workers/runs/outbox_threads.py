"""Threads of this process that deliver outbox entries to hosts: one slow host leaves enough threads for the others."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any

SIZE, AT_A_HOST = 24, 8


class OutboxThreads:
    """A thread pool in which one host occupies at most its share of the threads."""

    def __init__(self, size: int, at_a_host: int) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="outbox")
        self._size, self._share, self._lock = size, at_a_host, Lock()
        self._at_work: set[Future[None]] = set()
        self._at: Counter[str] = Counter()

    def free(self) -> int:
        with self._lock:
            self._at_work = {one for one in self._at_work if not one.done()}
            return self._size - len(self._at_work)

    def send(self, work: Callable[..., None], *given: Any) -> "Future[None]":
        with self._lock:
            self._at_work.add(one := self._threads.submit(work, *given))
        return one

    @contextmanager
    def at(self, host_id: str) -> Iterator[None]:
        """Raises Busy where as many of us are at the host as may be."""
        with self._lock:
            if self._at[host_id] >= self._share:
                raise Busy(f"{self._share} others are asking {host_id} just now")
            self._at[host_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at[host_id] -= 1


class Busy(Exception):
    """Not now; in a moment."""


crew = OutboxThreads(SIZE, AT_A_HOST)


def _after_fork() -> None:
    """The child has none of its parent's threads."""
    global crew  # noqa: PLW0603 - one a process
    crew = OutboxThreads(SIZE, AT_A_HOST)


os.register_at_fork(after_in_child=_after_fork)

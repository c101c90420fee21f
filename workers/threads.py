"""Threads that call hosts: bounded, and a host that does not answer leaves enough of them for the others."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")
GATHER_SECS = 0.01
HOSTS_EACH = 8  # polled by one thread, one after the other: a poll takes milliseconds


class PollThreads:
    """The threads that poll hosts, and the host that each poll is for.

    `holder` is our name in the database: it holds the hosts that we poll.
    """

    def __init__(self, size: int) -> None:
        self.holder, self._size = uuid.uuid4().hex, size
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="poll")
        self.prefetch = ThreadPoolExecutor(size, thread_name_prefix="prefetch")
        self.polls: dict[str, Future[int]] = {}  # by host id
        self._failing: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """True if there are more hosts to poll than threads."""
        return len(self.polls) > self._size

    def free(self, failing: bool) -> int:
        """How many more hosts may be polled now. Those that did not answer last time get a quarter of the threads."""
        self.polls = {host_id: poll for host_id, poll in self.polls.items() if not poll.done()}
        free = self._size * HOSTS_EACH - len(self.polls)
        if not failing:
            return free
        return min(free, max(1, self._size // 4) - len(self._failing & self.polls.keys()))

    def submit(self, host_id: str, failing: bool, poll: Callable[..., int], *arguments: Any) -> "Future[int]":
        """Poll a host; `failing` says that it did not answer last time."""
        (self._failing.add if failing else self._failing.discard)(host_id)
        sent = self.polls[host_id] = self._threads.submit(poll, *arguments)
        return sent

    def close(self) -> None:
        """Wait for the polls that are under way."""
        for threads in (self._threads, self.prefetch):
            threads.shutdown()


class HostThreads:
    """Threads of which one host gets at most `per_host` at once."""

    def __init__(self, size: int, per_host: int) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="outbox")
        self.size, self._per_host, self._lock = size, per_host, threading.Lock()
        self._open: set[Future[None]] = set()
        self._at_host: Counter[str] = Counter()

    def free(self) -> int:
        """How many threads are idle."""
        with self._lock:
            self._open = {one for one in self._open if not one.done()}
            return self.size - len(self._open)

    def submit(self, work: Callable[..., None], *arguments: Any) -> "Future[None]":
        with self._lock:
            self._open.add(one := self._threads.submit(work, *arguments))
        return one

    @contextmanager
    def at_host(self, host_id: str) -> Iterator[None]:
        """Count this thread as one that calls the host. Raises Busy if `per_host` others do."""
        with self._lock:
            if self._at_host[host_id] >= self._per_host:
                raise Busy(f"{self._per_host} other requests to {host_id} are open")
            self._at_host[host_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_host[host_id] -= 1

    def close(self) -> None:
        """Wait for the work that is under way."""
        self._threads.shutdown()


class Busy(Exception):
    """Too many requests to one host are open; try again in a moment."""


class Batch(Generic[T]):
    """Writes items of several threads together: the first thread that gets the lock writes for all that wait."""

    def __init__(self) -> None:
        self._waiting: list[T] = []
        self._listing, self._writing = threading.Lock(), threading.Lock()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    @property
    def is_writing(self) -> bool:
        return self._writing.locked()

    def write(self, item: T, write: Callable[[list[T]], None], is_busy: bool) -> None:
        """Return once `item` is written. `is_busy`: more items will follow, so wait a moment for them.

        If `write` fails, the other threads write their items again.
        """
        with self._listing:
            self._waiting.append(item)
        with self._writing:
            with self._listing:
                if not any(one is item for one in self._waiting):  # another thread has written it
                    return
            if is_busy:
                time.sleep(GATHER_SECS)
            with self._listing:
                items, self._waiting = self._waiting, []
            try:
                write(items)
            except BaseException:
                with self._listing:
                    self._waiting += [one for one in items if one is not item]
                raise

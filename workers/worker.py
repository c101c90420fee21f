"""The worker: what the tasks of one process share: fleet, host connections, threads, output readers.

Each process makes one, after any fork, and closes it when it ends (workers/celery.py).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from app.ports import Fleet
from app.store.host_polls import Answered
from workers.hosts.client import HostClient, HostLimits
from workers.hosts.probe import Prober, record_failure
from workers.readers import OutputReaders
from workers.threads import Batch, HostThreads, PollThreads


@dataclass(frozen=True)
class Limits:
    """Sizes and times of one worker. Tests make them smaller."""

    poll_bytes: int = 4 << 20  # of output in one poll of a host
    poll_turn_secs: float = 5.0  # one poll thread reads from one host; then others get the thread
    poll_wait_secs: float = 2.0  # the poll task waits for its hosts; slower ones go on without it
    start_wait_secs: float = 5.0  # the work task waits for its starts and stops; slower ones go on without it
    start_threads: int = 24
    starts_per_host: int = 8  # of these threads
    readers: int = 512  # runs with a parser in memory
    hosts: HostLimits = field(default_factory=HostLimits)


class Worker:
    """`poll_threads` is FLEET_LOOK_THREADS unless given; `hosts` is made unless given."""

    def __init__(
        self,
        fleet: Fleet,
        limits: Limits | None = None,
        hosts: HostClient | None = None,
        poll_threads: int | None = None,
    ) -> None:
        self.fleet, self.limits = fleet, limits or Limits()
        self.hosts = hosts or host_client(fleet, self.limits.hosts)
        self.prober = Prober(fleet, self.hosts)
        self.poll_threads = PollThreads(poll_threads or fleet.config.look_threads)
        self.answered: Batch[Answered] = Batch()
        self.start_threads = HostThreads(self.limits.start_threads, self.limits.starts_per_host)
        self.readers = OutputReaders(self.limits.readers)

    def close(self) -> None:
        """Wait for open requests, then close every connection: a request that we cut off would make its host unfit.

        Runs on hosts go on.
        """
        self.poll_threads.close()
        self.start_threads.close()
        self.prober.close()
        self.hosts.close()


class WorkerOfProcess:
    """Makes the worker of this process when its first task runs: after any fork."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._worker: Worker | None = None

    def get(self) -> Worker:
        with self._lock:
            if self._worker is None:
                self._worker = self._make()
            return self._worker

    def close(self) -> None:
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None


def host_client(fleet: Fleet, limits: HostLimits | None = None) -> HostClient:
    """A client for the hosts of a fleet; a host that does not answer becomes unfit or quarantined."""
    return HostClient(fleet.config.home / "work", fleet.instance, partial(record_failure, fleet), limits)

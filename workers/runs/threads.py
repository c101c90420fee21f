"""The threads of this process that look at hosts, bounded, and few of them where nobody answers."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from app.ports import Fleet
from app.services.runs import report
from app.store.host_polls import Answered

GATHER_SECS = 0.01
EACH = 8  # hosts that one of us looks at in a round, one after the other: a look takes milliseconds


@dataclass
class Crew:
    """The threads of this process that look at hosts, and where they are. `name` holds the hosts in the database."""

    size: int
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    at_work: dict[str, "Future[int]"] = field(default_factory=dict)
    in_vain: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="look")
        self.ahead = ThreadPoolExecutor(self.size, thread_name_prefix="look-ahead")
        self._answered: list[Answered] = []
        self._listing, self._writing = Lock(), Lock()

    def free(self, failing: bool) -> int:
        """How many more hosts may be looked at, some by each of us; of those that do not answer only as many at once as
        a quarter of us bear."""
        self.at_work = {host_id: look for host_id, look in self.at_work.items() if not look.done()}
        room = self.size * EACH - len(self.at_work)
        return min(room, max(1, self.size // 4) - len(self.in_vain & self.at_work.keys())) if failing else room

    def send(self, host_id: str, failing: bool, look: Callable[..., int], *given: Any) -> "Future[int]":
        (self.in_vain.add if failing else self.in_vain.discard)(host_id)
        sent = self.at_work[host_id] = self._threads.submit(look, *given)
        return sent

    def note(self, fleet: Fleet, answered: Answered, slowest: float) -> None:
        """Have it written down that a host answered, by the first of us to come. Where there are many more to come, it
        waits a moment for them."""
        with self._listing:
            self._answered.append(answered)
        with self._writing:
            with self._listing:
                if answered not in self._answered:  # somebody has written it with theirs
                    return
            if len(self.at_work) > self.size:
                time.sleep(GATHER_SECS)
            with self._listing:
                mine, self._answered = self._answered, []
            try:
                report.looked(fleet, self.name, mine, slowest)
            except BaseException:
                with self._listing:  # each of the others finds its own, and tries again
                    self._answered += [one for one in mine if one is not answered]
                raise

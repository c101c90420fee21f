"""Limits the sessions on one connection: lowered when the host refuses one (sshd's MaxSessions)."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from workers.errors import Unreachable

MOST_REFUSALS = 8  # in a row, while no session of ours is open


class SessionLimit:
    """How many sessions may be open at once on a connection."""

    def __init__(self, most: int) -> None:
        self.most, self._open, self._ended, self._changed = most, 0, 0, threading.Condition()

    @contextmanager
    def slot(self, until: float) -> Iterator[None]:
        """Hold a slot for one session. Raises Unreachable if none is free before `until` (monotonic time)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._open < self.most, max(0.0, until - time.monotonic())):
                raise Unreachable("all its sessions are busy")
            self._open += 1
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def session_ended(self) -> None:
        """The host closed a session of ours, so it may open another one."""
        self._ended += 1

    def attempts(self, until: float) -> Iterator[int]:
        """Yield once for each attempt to open a session, until `until` (monotonic time).

        Each refusal lowers the limit. The next attempt follows when a session of ours ends, or a little later: the host
        may notice the end late. Gives up after MOST_REFUSALS while no session of ours is open.
        """
        alone, seen = 0, self._ended
        for number in itertools.count():
            yield number
            with self._changed:
                alone = 0 if self._open or seen != self._ended else alone + 1
                seen = self._ended
                self.most = max(1, self._open)
                left = until - time.monotonic()
                if alone > MOST_REFUSALS or left <= 0:
                    return
                # Only an ended session wakes us: woken by other refused threads, all would be refused again at once.
                self._changed.wait_for(partial(self._has_ended_since, seen), min(left, 0.02 * 2 ** min(number, 5)))

    def _has_ended_since(self, count: int) -> bool:
        return self._ended != count

"""Leaves a host alone that failed: longer each time, then one caller may try."""

import random
import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]
FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS = 1.0, 60.0


class Breaker:
    """Closed while all is well; open for a pause after a failure; then half open: one may try, and decides."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance, self._lock = clock, chance, threading.Lock()
        self.failures, self._until, self._trying = 0, 0.0, False
        self.why = ""

    def pause(self) -> float:
        """0 for a caller that may try; else for how many seconds more the host is left alone. When a pause is over,
        the first who asks may try; the others wait for what comes of it."""
        with self._lock:
            left = self._until - self._clock()
            if left > 0:
                return left
            if self.failures:
                self._until, self._trying = self._clock() + self._length(), True
            return 0.0

    def worked(self) -> None:
        with self._lock:
            self.failures, self._until, self._trying = 0, 0.0, False

    def failed(self, why: str, longest: bool = False) -> None:
        """`longest` begins with the longest pause: knocking again would do harm. Several who were under way when the
        host failed have seen one failure."""
        with self._lock:
            self.why = why
            if self._until > self._clock() and not self._trying:
                return
            self.failures, self._trying = self.failures + 1, False
            self._until = self._clock() + (LONGEST_PAUSE_SECS if longest else self._length())

    def _length(self) -> float:
        """With some chance in it, so that many hosts that failed together are not tried together."""
        return float(min(LONGEST_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(self.failures - 1, 10))) * (
            0.8 + 0.4 * self._chance()
        )

"""Circuit breaker of one host: after a failure no caller tries it for a pause that grows, then one caller may."""

import random
import threading
import time
from collections.abc import Callable

FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS = 1.0, 60.0


class CircuitBreaker:
    """Closed: all callers may try. Open: none may, for a pause. Half open: one may try, and its result decides."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance, self._lock = clock, chance, threading.Lock()
        self.failures, self._until, self._is_half_open = 0, 0.0, False
        self.why = ""  # the last failure

    def seconds_to_wait(self) -> float:
        """0 if the caller may try now; otherwise the seconds that are left of the pause.

        After a pause the first caller may try. The others wait for its result.
        """
        with self._lock:
            left = self._until - self._clock()
            if left > 0:
                return left
            if self.failures:
                self._until, self._is_half_open = self._clock() + self._pause(), True
            return 0.0

    def succeeded(self) -> None:
        with self._lock:
            self.failures, self._until, self._is_half_open = 0, 0.0, False

    def failed(self, why: str, longest: bool = False) -> None:
        """Start a pause, at once the `longest` if another try would do harm.

        Callers that were under way when the host failed count as one failure.
        """
        with self._lock:
            self.why = why
            if self._until > self._clock() and not self._is_half_open:
                return
            self.failures, self._is_half_open = self.failures + 1, False
            self._until = self._clock() + (LONGEST_PAUSE_SECS if longest else self._pause())

    def _pause(self) -> float:
        """Seconds, with 20 % jitter: hosts that failed together are not tried together."""
        pause = min(LONGEST_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(self.failures - 1, 10))
        return float(pause) * (0.8 + 0.4 * self._chance())

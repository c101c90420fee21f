"""Tells the workers that deliveries came in, beside the answer: a broker that is slow or gone holds up no delivery."""

import threading
from collections.abc import Callable

PAUSE_SECS = 0.05  # however many come in, the workers are nudged no more often
LINGER_SECS = 5.0


class Doorbell:
    """Rings once for all that came since it rang last. Its thread ends when it is quiet."""

    def __init__(self, nudge: Callable[[], None]) -> None:
        self._nudge = nudge
        self._lock = threading.Condition()
        self._wanted = False
        self._ringer: threading.Thread | None = None

    def ring(self) -> None:
        with self._lock:
            self._wanted = True
            self._lock.notify()
            if self._ringer is None:
                self._ringer = threading.Thread(target=self._ring, daemon=True, name="doorbell")
                self._ringer.start()

    def _ring(self) -> None:
        while self._is_wanted():
            self._nudge()
            threading.Event().wait(PAUSE_SECS)

    def _is_wanted(self) -> bool:
        with self._lock:
            wanted = self._lock.wait_for(lambda: self._wanted, LINGER_SECS)
            self._wanted = False
            if not wanted:
                self._ringer = None
            return wanted

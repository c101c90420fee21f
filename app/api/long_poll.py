"""The long poll: requests that wait for work, each in a thread of its own, without a database connection."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from app.ports import Fleet
from app.services.runs import expiry
from app.store.notify import Ear

T = TypeVar("T")
LOOK_SECS = 5.0  # how long a ring may be lost


class Waiting:
    """Room for `seats` who wait; the bell wakes them."""

    def __init__(self, fleet: Fleet, seats: int) -> None:
        self._ear = Ear(fleet.engine, lambda: expiry.pulse(fleet), expiry.PULSE_SECS)
        self._seats = threading.BoundedSemaphore(seats)
        self._is_closed = False

    def open(self) -> None:
        """Begin to listen and to be seen alive."""
        self._ear.listen()

    def close(self) -> None:
        """This process is about to end: nobody waits any longer, and whoever does is answered now."""
        self._is_closed = True
        self._ear.wake()

    def until(self, look: Callable[[bool], T | None], seconds: float) -> T | None:
        """Call `look` now and after each ring until it gives something or `seconds` have passed; the last call is told
        so. None when every seat is taken and there is nothing now."""
        end = time.monotonic() + seconds
        found = look(seconds <= 0)
        if found is not None or seconds <= 0 or not self._seats.acquire(blocking=False):
            return found
        try:
            return self._wait(look, end)
        finally:
            self._seats.release()

    def _wait(self, look: Callable[[bool], T | None], end: float) -> T | None:
        while True:
            rings, left = self._ear.rings, 0 if self._is_closed else end - time.monotonic()
            found = look(left <= 0)
            if found is not None or left <= 0:
                return found
            self._ear.wait(rings, min(left, LOOK_SECS))

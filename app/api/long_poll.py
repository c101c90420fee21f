"""Long polls: requests that wait for work, each in its thread, without a database connection."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from app.ports import Fleet
from app.services.runs import expiry
from app.store.notify import WorkListener

T = TypeVar("T")
POLL_SECS = 5.0  # the longest delay if a notification is lost


class LongPolls:
    """At most `seats` requests wait at once; a notification of the database wakes them."""

    def __init__(self, fleet: Fleet, seats: int) -> None:
        self._listener = WorkListener(fleet.engine, lambda: expiry.record_web_alive(fleet), expiry.WEB_ALIVE_SECS)
        self._seats = threading.BoundedSemaphore(seats)
        self._is_closed = False

    def open(self) -> None:
        """Start to listen for notifications."""
        self._listener.start()

    def close(self) -> None:
        """Answer all waiting requests now, and let no request wait: the process is about to end."""
        self._is_closed = True
        self._listener.wake()

    def until(self, poll: Callable[[bool], T | None], seconds: float) -> T | None:
        """Call `poll` now and after each notification, until it returns something or `seconds` have passed.

        Its argument is True in the last call. Returns None if there is nothing now and every seat is taken.
        """
        end = time.monotonic() + seconds
        found = poll(seconds <= 0)
        if found is not None or seconds <= 0 or not self._seats.acquire(blocking=False):
            return found
        try:
            return self._wait(poll, end)
        finally:
            self._seats.release()

    def _wait(self, poll: Callable[[bool], T | None], end: float) -> T | None:
        while True:
            count, left = self._listener.count, 0 if self._is_closed else end - time.monotonic()
            found = poll(left <= 0)
            if found is not None or left <= 0:
                return found
            self._listener.wait(count, min(left, POLL_SECS))

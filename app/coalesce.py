"""Coalesces requests: a burst of requests becomes few calls, made on a thread of their own."""

import threading
import time
from collections.abc import Callable


class Coalescer:
    """Calls `send` for all requests since its last call, at most once in `pause` seconds.

    A request never waits for `send`. One that is made while `send` runs causes another call, so what a caller has
    written before its request is there when `send` runs. The thread ends when there are no more requests; a process
    that exits makes the last call first.
    """

    def __init__(self, name: str, send: Callable[[], None], pause: float) -> None:
        self._name, self._send, self._pause = name, send, pause
        self._lock = threading.Lock()
        self._requested = False
        self._thread: threading.Thread | None = None

    def request(self) -> None:
        with self._lock:
            self._requested = True
            if self._thread is None or not self._thread.is_alive():  # not alive: a fork, or an error in `send`
                self._thread = threading.Thread(target=self._run, name=self._name)
                self._thread.start()

    def _run(self) -> None:
        while self._take_request():
            self._send()
            time.sleep(self._pause)

    def _take_request(self) -> bool:
        """Whether there was a request since the last call. The thread ends where there was none."""
        with self._lock:
            requested, self._requested = self._requested, False
            if not requested:
                self._thread = None
            return requested

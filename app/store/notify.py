"""Notifies waiting requests of new work: NOTIFY after a commit, LISTEN on one connection a process."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, TimeoutError

from app.coalesce import Coalescer

CHANNEL = "fleet_work"
PAUSE_SECS = 0.02  # the shortest time between two notifications: one in each commit would halve the rate of intake
RETRY_SECS = 1.0
log = structlog.get_logger()


class WorkNotifier:
    """Notifies every process that tasks for agents were committed, once for a burst and without delaying a commit.

    A lost notification is harmless: requests that wait look by themselves now and then.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._notifications = Coalescer("notify", self._send, PAUSE_SECS)

    def notify(self) -> None:
        """Call it after the commit that made work."""
        self._notifications.request()

    def _send(self) -> None:
        try:
            with self._engine.begin() as conn:
                conn.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))
        except (DBAPIError, TimeoutError) as error:
            log.warning("no notification was sent", why=str(error).splitlines()[0])


class WorkListener:
    """Listens on a connection of its own and wakes the threads that wait here.

    `pulse` is called after each `every` seconds without a notification, and after notifications at most as often.
    """

    def __init__(self, engine: Engine, pulse: Callable[[], None], every: float) -> None:
        self._url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._pulse, self._every, self._pulsed = pulse, every, 0.0
        self._changed = threading.Condition()
        self._count = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; a second call changes nothing."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
                self._thread.start()

    @property
    def count(self) -> int:
        """The number of notifications so far: pass it to `wait`, and none in between is missed."""
        return self._count

    def wait(self, since: int, seconds: float) -> bool:
        """Wait for a notification after `since`; False when `seconds` passed without one."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count != since, seconds)

    def wake(self) -> None:
        """Wake all threads that wait here."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as conn:
                    conn.execute(f"LISTEN {CHANNEL}")
                    self.wake()  # for notifications that were missed
                    self._listen(conn)
            except psycopg.Error as error:
                log.warning("cannot listen for work; polling instead", why=str(error).splitlines()[0])
                time.sleep(RETRY_SECS)

    def _listen(self, conn: psycopg.Connection) -> None:
        while True:
            for _ in conn.notifies(timeout=self._every, stop_after=1):
                self.wake()
            if time.monotonic() - self._pulsed >= self._every:
                self._pulsed = time.monotonic()
                with suppress(DBAPIError, TimeoutError):
                    self._pulse()

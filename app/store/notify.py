"""The bell: rung when work for agents was committed, heard by everyone who waits for it, in whichever process."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, TimeoutError

CHANNEL = "fleet_work"
PAUSE_SECS = 0.02  # a burst of new tasks rings once: a notification in each commit would halve the rate of intake
RETRY_SECS = 1.0
log = structlog.get_logger()


class Bell:
    """Rings for a whole burst at once, from a thread of its own, so that nobody who commits waits for it. A ring that
    is lost does no harm: those who wait look by themselves now and then."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ring(self) -> None:
        self._asked.set()
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._ring_on, name="bell", daemon=True)
                self._thread.start()

    def _ring_on(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            try:
                with self._engine.begin() as conn:
                    conn.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))
            except (DBAPIError, TimeoutError) as error:
                log.warning("the bell could not be rung", why=str(error).splitlines()[0])
            time.sleep(PAUSE_SECS)


class Ear:
    """Listens on a connection of its own and wakes whoever waits. `pulse` is called after each silent `every`
    seconds, and after each ring at most as often."""

    def __init__(self, engine: Engine, pulse: Callable[[], None], every: float) -> None:
        self._url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._pulse, self._every, self._pulsed = pulse, every, 0.0
        self._rung = threading.Condition()
        self._rings = 0
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """Begin, once."""
        with self._rung:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen_on, name="ear", daemon=True)
                self._thread.start()

    @property
    def rings(self) -> int:
        """How often the bell was heard so far: pass it to `wait`, and no ring in between is missed."""
        return self._rings

    def wait(self, since: int, seconds: float) -> bool:
        """Wait until the bell has rung after `since`; False when `seconds` passed in silence."""
        with self._rung:
            return self._rung.wait_for(lambda: self._rings != since, seconds)

    def wake(self) -> None:
        """Have all who wait here look."""
        with self._rung:
            self._rings += 1
            self._rung.notify_all()

    def _listen_on(self) -> None:
        while True:
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as conn:
                    conn.execute(f"LISTEN {CHANNEL}")
                    self.wake()  # what came while nobody listened
                    self._hear(conn)
            except psycopg.Error as error:
                log.warning("cannot listen for work; looking now and then instead", why=str(error).splitlines()[0])
                time.sleep(RETRY_SECS)

    def _hear(self, conn: psycopg.Connection) -> None:
        while True:
            for _ in conn.notifies(timeout=self._every, stop_after=1):
                self.wake()
            if time.monotonic() - self._pulsed >= self._every:
                self._pulsed = time.monotonic()
                with suppress(DBAPIError, TimeoutError):
                    self._pulse()

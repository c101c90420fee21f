"""Sends Celery tasks by name: the nudge that wakes the workers early."""

import threading
import time
from typing import Any

import structlog
from celery import Celery
from kombu.connection import Connection as Link
from kombu.exceptions import OperationalError

log = structlog.get_logger()
WORK, QUEUE = "fleet.work", "fleet"


AWAY_SECS = 5.0  # before a broker that did not answer is asked again


BURST_SECS = 0.05


def broker_options() -> dict[str, Any]:
    """How Celery and the nudge talk to Redis: quick to give up, since a message is only a hint."""
    return {"socket_timeout": 5, "socket_connect_timeout": 1, "visibility_timeout": 3600}


def broker_answers(redis_url: str) -> bool:
    """Whether there is a broker."""
    try:
        with Link(redis_url, transport_options=broker_options()) as link:  # type: ignore[no-untyped-call]
            link.ensure_connection(max_retries=1, timeout=1)
            return True
    except Exception:  # whatever stands in the way, the answer is that it is away
        return False


class Nudge:
    """Sends one Celery task by name: at once, and in a burst once more for all that came after it. Failing is harmless:
    the next scan finds the row."""

    def __init__(self, redis_url: str) -> None:
        self._celery = Celery("fleet", broker=redis_url)
        self._celery.conf.update(
            broker_transport_options=broker_options() | {"max_retries": 0, "socket_timeout": 1},
            task_ignore_result=True,
            task_default_queue=QUEUE,
        )
        self._sent, self._later, self._lock = 0.0, False, threading.Lock()
        self._away_until = 0.0

    def soon(self) -> None:
        with self._lock:
            wait = self._sent + BURST_SECS - time.monotonic()
            if self._later:
                return
            self._later = wait > 0
            self._sent = max(self._sent, time.monotonic())
        if wait > 0:
            threading.Timer(wait, self._send_the_rest).start()
        else:
            self._send()

    def _send_the_rest(self) -> None:
        with self._lock:
            self._later, self._sent = False, time.monotonic()
        self._send()

    def _send(self) -> None:
        """While the broker is away nobody who does his work waits for it more than once in a while."""
        if time.monotonic() < self._away_until:
            return
        try:
            self._celery.send_task(WORK, ignore_result=True, retry=False, expires=60)
        except (OperationalError, OSError) as error:
            self._away_until = time.monotonic() + AWAY_SECS
            log.warning("no nudge; the next scan will find it", why=str(error))

"""Sends the Celery task that wakes the workers early, and tells whether there is a broker."""

import time
from typing import Any

import structlog
from celery import Celery
from kombu.connection import Connection as Link
from kombu.exceptions import OperationalError

from app.coalesce import Coalescer

log = structlog.get_logger()
WORK, QUEUE = "fleet.work", "fleet"
AWAY_SECS = 5.0  # how long nothing is sent to a broker that did not answer
PAUSE_SECS = 0.05  # the shortest time between two messages


def broker_options() -> dict[str, Any]:
    """Celery's options for Redis. The timeouts are short, since a message is only a hint."""
    return {"socket_timeout": 5, "socket_connect_timeout": 1, "visibility_timeout": 3600}


def broker_answers(redis_url: str) -> bool:
    """Whether there is a broker."""
    try:
        with Link(redis_url, transport_options=broker_options()) as link:  # type: ignore[no-untyped-call]
            link.ensure_connection(max_retries=1, timeout=1)
            return True
    except Exception:  # whatever the cause, there is no broker
        return False


class Nudge:
    """Wakes the workers: sends one Celery task by name for a burst of calls, on a thread of its own.

    A slow or absent broker delays no caller. A lost message is harmless: the next scan finds the row.
    """

    def __init__(self, redis_url: str, away_secs: float = AWAY_SECS) -> None:
        self._celery = Celery("fleet", broker=redis_url)
        self._celery.conf.update(
            broker_transport_options=broker_options() | {"max_retries": 0, "socket_timeout": 1},
            task_ignore_result=True,
            task_default_queue=QUEUE,
        )
        self._messages = Coalescer("nudge", self._send, PAUSE_SECS)
        self._away_secs, self._away_until = away_secs, 0.0

    def soon(self) -> None:
        """Call it after the commit that made work."""
        self._messages.request()

    def _send(self) -> None:
        if time.monotonic() < self._away_until:
            return
        try:
            self._celery.send_task(WORK, ignore_result=True, retry=False, expires=60)
        except (OperationalError, OSError) as error:
            self._away_until = time.monotonic() + self._away_secs
            log.warning("the broker does not answer; the next scan finds the work", why=str(error))

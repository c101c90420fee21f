"""config -> engine, forges, nudge; used by web, cli and workers alike."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import structlog
from celery import Celery
from kombu.connection import Connection as Link
from kombu.exceptions import OperationalError
from sqlalchemy import Connection, Engine

from app.config import settings
from app.config.settings import Config
from app.domain.errors import Kind, Refused
from app.domain.masking import Mask
from app.forgejo.client import Forgejo
from app.ports import Clock, Fleet
from app.store import fleet_config
from app.store.engine import announce_after_commit, connect
from app.store.notify import Bell

WORK, QUEUE = "fleet.work", "fleet"
AWAY_SECS = 5.0  # before a broker that did not answer is asked again
BURST_SECS = 0.05
SHORTEST_SECRET = 8  # a shorter piece of a secret is a part of one, not one of two
log = structlog.get_logger()


def fleet(environ: Mapping[str, str] | None = None, connections: int = 8) -> Fleet:
    """Everything a process of ours works with. Raises app.config.settings.Wrong."""
    config = settings.read(os.environ if environ is None else environ)
    kept = [secret for name, secret in config.secrets.items() if _is_secret(name)]
    mask = Mask(piece for secret in kept for piece in (secret, *secrets_in(secret)))
    set_up_logs(mask)
    engine = connect(config.database_url, connections)
    ring_and_log(engine)
    return Fleet(config, engine, Forges(config, engine, now), Nudge(config.redis_url), now, mask, instance_of(engine))


def instance_of(engine: Engine) -> Callable[[], str]:
    """Asks the database once."""

    @cache
    def instance() -> str:
        with engine.begin() as conn:
            return fleet_config.instance(conn)

    return instance


def now() -> datetime:
    return datetime.now(UTC)


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


class Forges:
    """Forge clients by name, one connection pool each, made anew when a forge's declaration changed."""

    def __init__(self, config: Config, engine: Any, clock: Clock) -> None:
        self._config, self._engine, self._clock = config, engine, clock
        self._client = cache(Forgejo)

    def __call__(self, name: str) -> Forgejo:
        with self._engine.begin() as conn:
            row = next((row for row in fleet_config.all_forges(conn) if row["name"] == name), None)
        if row is None:
            raise Refused(Kind.UNKNOWN, f"The forge {name!r} is not declared in fleet.toml.")
        token = self._config.secret(row["token_env"], row["token_file"])
        if not token:
            raise Refused(
                Kind.INVALID,
                f"The token of forge {name!r} is missing: set {row['token_env']} or {row['token_env']}_FILE.",
            )
        return self._client(name, row["url"], token, self._clock, row["bot_id"])


def webhook_secrets(fleet: Fleet, conn: Connection) -> dict[str, tuple[str, ...]]:
    """The webhook secrets of each forge that has one: while one is replaced, the old and the new are both good."""
    rows = fleet_config.all_forges(conn)
    found = {row["name"]: fleet.config.secret(row["webhook_secret_env"], row["webhook_secret_file"]) for row in rows}
    return {name: (secret, *secrets_in(secret)) for name, secret in found.items() if secret}


def secrets_in(value: str) -> tuple[str, ...]:
    """The secrets in a value that holds several, apart by commas or white space; none where it holds but one."""
    pieces = tuple(piece for piece in re.split(r"[\s,]+", value) if len(piece) >= SHORTEST_SECRET)
    return pieces if len(pieces) > 1 else ()


# --- logs ------------------------------------------------------------------------------------------------


def set_up_logs(mask: Mask, stream: Any = None) -> None:
    """One line of JSON an entry, secrets masked by value."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            lambda _, __, line: mask.json(line),
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def ring_and_log(engine: Engine) -> None:
    """What follows the commit of an event: a line in the log, and the bell when agents may take the task."""
    bell = Bell(engine)

    def announced(event: Mapping[str, Any]) -> None:
        announce(event)
        if event["for_agents"]:
            bell.ring()

    announce_after_commit(engine, announced)


def announce(event: Mapping[str, Any]) -> None:
    """The one subscriber to the events: a line for each fact."""
    detail = event["detail"]
    log.info(
        str(event["what"]),
        task=event["task_id"],
        run=event["number"],
        moved=f"{event['from_state'] or '-'} -> {event['to_state']}",
        **{
            name: detail[name]
            for name in ("host_id", "reason", "why", "number", "head")
            if detail.get(name) is not None
        },
    )


def _is_secret(name: str) -> bool:
    return name in settings.SECRETS or any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY"))

"""Builds the parts of a process from its settings: engine, forge clients, nudge, clock, mask."""

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import structlog
from sqlalchemy import Connection, Engine

from app.broker import Nudge
from app.config import settings
from app.config.settings import Config
from app.domain.errors import Kind, Refused
from app.domain.masking import Mask
from app.forgejo.client import Forgejo
from app.logs import announce, is_secret, set_up_logs
from app.ports import Clock, Fleet
from app.store import fleet_config
from app.store.engine import announce_after_commit, connect
from app.store.notify import WorkNotifier

SHORTEST_SECRET = 8  # characters; a shorter piece is a part of one secret
log = structlog.get_logger()


def fleet(environ: Mapping[str, str] | None = None, connections: int = 8) -> Fleet:
    """The parts that every process works with, by an environment (else os.environ) and a number of connections.

    Raises app.config.settings.ConfigError with all faults.
    """
    config = settings.read(os.environ if environ is None else environ)
    kept = [secret for name, secret in config.secrets.items() if is_secret(name)]
    mask = Mask(piece for secret in kept for piece in (secret, *secrets_in(secret)))
    set_up_logs(mask)
    engine = connect(config.database_url, connections)
    notify_and_log(engine)
    return Fleet(config, engine, Forges(config, engine, now), Nudge(config.redis_url), now, mask, instance_of(engine))


def instance_of(engine: Engine) -> Callable[[], str]:
    """A function that returns the name of this installation and queries it once."""

    @cache
    def instance() -> str:
        with engine.begin() as conn:
            return fleet_config.instance(conn)

    return instance


def now() -> datetime:
    return datetime.now(UTC)


class Forges:
    """Return the client of a forge by its name. A client and its connections are kept until the declaration changes.

    Raises Refused where the forge is not declared or its token is missing.
    """

    def __init__(self, config: Config, engine: Any, clock: Clock) -> None:
        self._config, self._engine, self._clock = config, engine, clock
        self._client = cache(Forgejo)

    def __call__(self, name: str) -> Forgejo:
        with self._engine.begin() as conn:
            row = next((row for row in fleet_config.all_forges(conn) if row.name == name), None)
        if row is None:
            raise Refused(Kind.UNKNOWN, f"The forge {name!r} is not declared in fleet.toml.")
        token = self._config.secret(row.token_env, row.token_file)
        if not token:
            raise Refused(
                Kind.INVALID,
                f"The token of forge {name!r} is missing: set {row.token_env} or {row.token_env}_FILE.",
            )
        return self._client(name, row.url, token, self._clock, row.bot_id)


def webhook_secrets(fleet: Fleet, conn: Connection) -> dict[str, tuple[str, ...]]:
    """The webhook secrets by the name of the forge. While a secret is replaced, the old and the new one are valid."""
    rows = fleet_config.all_forges(conn)
    found = {row.name: fleet.config.secret(row.webhook_secret_env, row.webhook_secret_file) for row in rows}
    return {name: (secret, *secrets_in(secret)) for name, secret in found.items() if secret}


def secrets_in(value: str) -> tuple[str, ...]:
    """The secrets in a value with several of them, separated by commas or white space; nothing if it holds only one."""
    pieces = tuple(piece for piece in re.split(r"[\s,]+", value) if len(piece) >= SHORTEST_SECRET)
    return pieces if len(pieces) > 1 else ()


def notify_and_log(engine: Engine) -> None:
    """After the commit of each event: write a log line, and notify waiting agents when they may take the task."""
    notifier = WorkNotifier(engine)

    def announced(event: Mapping[str, Any]) -> None:
        announce(event)
        if event["for_agents"]:
            notifier.notify()

    announce_after_commit(engine, announced)

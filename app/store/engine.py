"""The connection to Postgres: one engine a process, short transactions, and events announced after their commit."""

import json
import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

Announce = Callable[[dict[str, Any]], None]
_PENDING = "announcements"
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def connect(url: str, size: int = 8, ping: bool = True) -> Engine:
    """An engine for `url`. With `ping`, a connection that died in the pool is noticed before it is used: whoever asks
    only once wants that."""
    engine = sa.create_engine(
        url,
        pool_size=size,
        max_overflow=4,
        pool_pre_ping=ping,
        json_serializer=as_jsonb,
        connect_args={
            "connect_timeout": 5,
            "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60000 -c lock_timeout=10000",
        },
    )
    return engine


def as_jsonb(value: Any) -> str:
    """JSON as Postgres takes it: NUL and half characters, which jsonb refuses, are replaced; NaN raises ValueError."""
    text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False).encode(errors="replace").decode()
    return _NUL.sub(r"\1\\ufffd", text)


def tell(conn: Connection, line: dict[str, Any]) -> None:
    """Have `line` announced if and when this transaction commits."""
    conn.info.setdefault(_PENDING, []).append(line)


def announce_after_commit(engine: Engine, announce: Announce) -> None:
    """Have `announce` called with each event once its transaction is committed."""

    @event.listens_for(engine, "commit")
    def committed(conn: Connection) -> None:
        for line in conn.info.pop(_PENDING, []):
            announce(line)

    @event.listens_for(engine, "rollback")
    def rolled_back(conn: Connection) -> None:
        conn.info.pop(_PENDING, None)

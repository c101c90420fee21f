"""Connects to Postgres: one engine a process, several statements in one round trip, announcements after a commit."""

import json
import re
import select
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from app.store.tables import Row

Announcement = Mapping[str, Any]  # an event by the names of its columns, with more about its task
Announce = Callable[[Announcement], None]
Statement = tuple[str, Mapping[str, Any]]  # SQL as psycopg takes it, and what goes in
# This transaction does not wait for the disk. A database that crashes within the next moment loses all of it.
UNHURRIED: Statement = ("SELECT set_config('synchronous_commit', 'off', true)", {})
_DIALECT: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_PENDING = "announcements"
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def connect(url: str, size: int = 8) -> Engine:
    """An engine for `url`.

    A pooled connection that the server has closed is noticed before it is used, without a round trip: its socket has
    data to read although no statement runs.
    """
    engine = sa.create_engine(
        url,
        pool_size=size,
        max_overflow=4,
        json_serializer=as_jsonb,
        connect_args={
            "connect_timeout": 5,
            "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60000 -c lock_timeout=10000",
        },
    )
    event.listen(engine, "checkout", _has_not_ended)
    return engine


def _has_not_ended(driver: "psycopg.Connection[Any]", *_: Any) -> None:
    """Raises DisconnectionError, for which the pool opens a new connection."""
    try:
        poller = select.poll()
        poller.register(driver.fileno(), select.POLLIN)
        if poller.poll(0):
            driver.execute("")
            driver.rollback()
    except (psycopg.Error, OSError) as gone:
        raise sa.exc.DisconnectionError(str(gone)) from gone


def reading_connection(engine: Engine) -> Connection:
    """A connection for reading only, as a context. Each statement sees what is committed when it runs; the two round
    trips that begin and end a transaction are saved."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def run_together(conn: Connection, *statements: Statement) -> list[list[Row]]:
    """Run these statements within the transaction of `conn`, in one round trip; returns the rows of each.

    For many small statements the round trip costs more than the work.
    """
    driver: psycopg.Connection[Any] = conn.connection.driver_connection  # type: ignore[assignment]
    try:
        with driver.pipeline() if len(statements) > 1 else nullcontext():
            cursors = [_on(driver).execute(sql, given) for sql, given in statements]
        return [list(cursor.fetchall()) if _has_rows(cursor) else [] for cursor in cursors]
    except psycopg.Error as error:
        if driver.closed:
            conn.invalidate(error)
        raise _as_ours(error) from error


def _has_rows(cursor: "psycopg.Cursor[dict[str, Any]]") -> bool:
    """Asks libpq itself: to describe each column takes longer than most statements."""
    return cursor.pgresult is not None and cursor.pgresult.nfields > 0


def fetch_one(conn: Connection, sql: str, **given: Any) -> Row | None:
    """The first row of a statement, or None."""
    found = run_together(conn, (sql, given))[0]
    return found[0] if found else None


def _on(driver: "psycopg.Connection[Any]") -> "psycopg.Cursor[dict[str, Any]]":
    return driver.cursor(row_factory=dict_row)


def _as_ours(error: psycopg.Error) -> Exception:
    """The driver's error as SQLAlchemy's, which callers handle."""
    found = sa.exc.DBAPIError.instance(None, None, error, psycopg.Error, dialect=_DIALECT)
    return found if isinstance(found, Exception) else error


def as_jsonb(value: Any) -> str:
    """JSON for jsonb: NUL and lone surrogates, which jsonb refuses, are replaced. Raises ValueError for NaN."""
    text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False).encode(errors="replace").decode()
    return _NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


def announce_later(conn: Connection, line: Announcement) -> None:
    """Announce `line` when this transaction commits."""
    conn.info.setdefault(_PENDING, []).append(line)


def announce_after_commit(engine: Engine, announce: Announce) -> None:
    """Call `announce` with each line after the commit of its transaction."""

    @event.listens_for(engine, "commit")
    def committed(conn: Connection) -> None:
        for line in conn.info.pop(_PENDING, []):
            announce(line)

    @event.listens_for(engine, "rollback")
    def rolled_back(conn: Connection) -> None:
        if not conn.invalidated:  # what was pending went with the connection, which has no more to say
            conn.info.pop(_PENDING, None)

"""Queues commands from comments by the comment's id, so that each is executed once and answered once."""

from dataclasses import asdict
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.comment_command import CommandRequest, QueuedCommand
from app.store.tables import Row
from app.store.tables import comment_commands as commands
from app.store.work_queue import WorkQueue

QUEUE = WorkQueue(commands, hold=timedelta(seconds=60), longest_wait=timedelta(minutes=2), reason="error")


def add(conn: Connection, request: CommandRequest, at: datetime) -> bool:
    """Queue a command; False if this comment's command was queued before."""
    statement = insert(commands).values(received_at=at, due_at=at, **asdict(request))
    return conn.execute(statement.on_conflict_do_nothing().returning(commands.c.id)).first() is not None


def take(conn: Connection, at: datetime, most: int = 10) -> list[QueuedCommand]:
    """Commands that are due and were not answered, in the order of their comments, held for QUEUE.hold."""
    held = QUEUE.take(conn, at, [commands.c.answered_at.is_(None)], commands.c.comment_id, most)
    return [_command(row) for row in held]


def lock_if_open(conn: Connection, id_: int) -> bool:
    """Lock a command for this transaction; True if it was not executed yet."""
    query = sa.select(commands.c.done_at).where(commands.c.id == id_).with_for_update()
    return conn.execute(query).scalar() is None


def begin(conn: Connection, id_: int, at: datetime) -> bool:
    """Record that a command that must not run twice is about to start; False if it was started before."""
    fresh = sa.update(commands).where(commands.c.id == id_, commands.c.begun_at.is_(None)).values(begun_at=at)
    return conn.execute(fresh.returning(commands.c.id)).first() is not None


def mark_done(conn: Connection, id_: int, at: datetime, result: str, reply: str | None) -> None:
    """Record that a command was executed or refused. Only the first call has an effect."""
    values = {"done_at": at, "result": result, "reply": reply and reply[:4000]}
    conn.execute(sa.update(commands).where(commands.c.id == id_, commands.c.done_at.is_(None)).values(**values))


def get(conn: Connection, id_: int) -> QueuedCommand:
    return _command(conn.execute(sa.select(commands).where(commands.c.id == id_)).mappings().one())


def mark_answered(conn: Connection, id_: int, at: datetime, error: str | None = None) -> None:
    """Record that nothing more is to do; `error` says why there is no answer."""
    QUEUE.finish(conn, [id_], answered_at=at, error=error and error[:1000])


def postpone(conn: Connection, held: QueuedCommand, at: datetime, why: str, wait: float | None = None) -> None:
    """Try again after `wait` seconds, or after the back-off."""
    QUEUE.postpone(conn, [held.id], held.tries, at, why[:1000], wait)


def _command(row: Row) -> QueuedCommand:
    return QueuedCommand(**{name: row[name] for name in QueuedCommand.__dataclass_fields__})

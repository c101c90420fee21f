"""Queues commands from comments by the comment's id, so that each is executed once and answered once."""

from dataclasses import asdict
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.comment_command import CommandRequest, QueuedCommand
from app.store.tables import Row
from app.store.tables import comment_commands as commands

HOLD = timedelta(seconds=60)
TRIES = 10
LONGEST_WAIT = timedelta(minutes=2)


def add(conn: Connection, request: CommandRequest, at: datetime) -> bool:
    """Queue a command; False if this comment's command was queued before."""
    statement = insert(commands).values(received_at=at, due_at=at, **asdict(request))
    return conn.execute(statement.on_conflict_do_nothing().returning(commands.c.id)).first() is not None


def take(conn: Connection, at: datetime, most: int = 10) -> list[QueuedCommand]:
    """Commands that are due and were not answered, in the order of their comments, held for HOLD."""
    free = sa.or_(commands.c.held_until.is_(None), commands.c.held_until <= at)
    chosen = (
        sa.select(commands.c.id)
        .where(commands.c.answered_at.is_(None), commands.c.due_at <= at, free)
        .order_by(commands.c.comment_id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    hold = sa.update(commands).where(commands.c.id.in_(chosen)).values(held_until=at + HOLD, tries=commands.c.tries + 1)
    held = conn.execute(hold.returning(commands)).mappings()
    return sorted(map(_command, held), key=lambda command: command.comment_id)


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
    values = {"answered_at": at, "held_until": None, "error": error and error[:1000]}
    conn.execute(sa.update(commands).where(commands.c.id == id_).values(**values))


def postpone(conn: Connection, held: QueuedCommand, at: datetime, why: str, wait: float | None = None) -> None:
    """Try again after `wait` seconds, or after a pause that doubles with each try."""
    pause = timedelta(seconds=wait) if wait else min(timedelta(seconds=2 ** min(held.tries, 8)), LONGEST_WAIT)
    values = {"due_at": at + pause, "held_until": None, "error": why[:1000]}
    conn.execute(sa.update(commands).where(commands.c.id == held.id).values(**values))


def _command(row: Row) -> QueuedCommand:
    return QueuedCommand(**{name: row[name] for name in QueuedCommand.__dataclass_fields__})

"""Commands from comments: kept by the comment's id, so that each is carried out once and answered once."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import Row, comment_commands

HOLD = timedelta(seconds=60)
TRIES = 10
LONGEST_WAIT = timedelta(minutes=2)


def keep(conn: Connection, forge: str, comment_id: int, values: Mapping[str, Any], at: datetime) -> bool:
    """Write a command down; False when the comment's was written down before, whoever heard of it."""
    statement = insert(comment_commands).values(forge=forge, comment_id=comment_id, received_at=at, due_at=at, **values)
    return conn.execute(statement.on_conflict_do_nothing().returning(comment_commands.c.id)).first() is not None


def take(conn: Connection, at: datetime, most: int = 10) -> list[Row]:
    """Commands that are not answered yet, in the order in which they were written, ours for HOLD."""
    free = sa.or_(comment_commands.c.held_until.is_(None), comment_commands.c.held_until <= at)
    chosen = (
        sa.select(comment_commands.c.id)
        .where(comment_commands.c.answered_at.is_(None), comment_commands.c.due_at <= at, free)
        .order_by(comment_commands.c.comment_id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    hold = (
        sa.update(comment_commands)
        .where(comment_commands.c.id.in_(chosen))
        .values(held_until=at + HOLD, tries=comment_commands.c.tries + 1)
    )
    return sorted(conn.execute(hold.returning(comment_commands)).mappings(), key=lambda row: int(row["comment_id"]))


def is_open(conn: Connection, id_: int) -> bool:
    """Whether nobody carried it out; the row stays locked for this transaction."""
    query = sa.select(comment_commands.c.done_at).where(comment_commands.c.id == id_).with_for_update()
    return conn.execute(query).scalar() is None


def begin(conn: Connection, id_: int, at: datetime) -> bool:
    """Note that what cannot be told twice is about to be done; False when somebody had begun already."""
    fresh = (
        sa.update(comment_commands)
        .where(comment_commands.c.id == id_, comment_commands.c.begun_at.is_(None))
        .values(begun_at=at)
    )
    return conn.execute(fresh.returning(comment_commands.c.id)).first() is not None


def done(conn: Connection, id_: int, at: datetime, result: str, reply: str | None) -> None:
    """It was carried out, or refused; only the first who says so is believed."""
    values = {"done_at": at, "result": result, "reply": reply and reply[:4000]}
    conn.execute(
        sa.update(comment_commands)
        .where(comment_commands.c.id == id_, comment_commands.c.done_at.is_(None))
        .values(**values)
    )


def get(conn: Connection, id_: int) -> Row:
    return conn.execute(sa.select(comment_commands).where(comment_commands.c.id == id_)).mappings().one()


def answered(conn: Connection, id_: int, at: datetime, error: str | None = None) -> None:
    values = {"answered_at": at, "held_until": None, "error": error and error[:1000]}
    conn.execute(sa.update(comment_commands).where(comment_commands.c.id == id_).values(**values))


def postpone(conn: Connection, row: Row, at: datetime, why: str, wait: float | None = None) -> None:
    pause = timedelta(seconds=wait) if wait else min(timedelta(seconds=2 ** min(row["tries"], 8)), LONGEST_WAIT)
    values = {"due_at": at + pause, "held_until": None, "error": why[:1000]}
    conn.execute(sa.update(comment_commands).where(comment_commands.c.id == row["id"]).values(**values))

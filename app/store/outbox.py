"""Outbox entries as rows: held while they are delivered, retried with back-off, given up where the operator sees it."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.lifecycle import OutboxKind
from app.domain.outbox import OutboxEntry
from app.store.tables import Row, outbox

HOLD = timedelta(seconds=45)
TRIES = 12
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(minutes=5)


def take(conn: Connection, kinds: Iterable[OutboxKind], at: datetime, most: int = 20) -> list[OutboxEntry]:
    """Open outbox of these kinds that nobody else holds, oldest first, and never one whose older sibling of the
    same kind and task is still open. They are ours for HOLD; when the process dies, they are free again after that."""
    older = outbox.alias()
    open_ = (outbox.c.done_at.is_(None), outbox.c.given_up_at.is_(None))
    elder_open = sa.exists().where(
        older.c.task_pk == outbox.c.task_pk, older.c.kind == outbox.c.kind, older.c.id < outbox.c.id,
        older.c.done_at.is_(None), older.c.given_up_at.is_(None),
    )  # fmt: skip
    free = sa.or_(outbox.c.held_until.is_(None), outbox.c.held_until <= at)
    chosen = (
        sa.select(outbox.c.id)
        .where(*open_, outbox.c.kind.in_(list(kinds)), outbox.c.due_at <= at, free, ~elder_open)
        .order_by(outbox.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    hold = sa.update(outbox).where(outbox.c.id.in_(chosen)).values(held_until=at + HOLD, tries=outbox.c.tries + 1)
    rows = conn.execute(hold.returning(outbox)).mappings()
    return sorted(map(entry_of, rows), key=lambda entry: entry.id)


def done(conn: Connection, id_: int, at: datetime) -> None:
    conn.execute(sa.update(outbox).where(outbox.c.id == id_).values(done_at=at, held_until=None, error=None))


def done_for_run(conn: Connection, task_pk: int, run: int, kind: OutboxKind, at: datetime) -> None:
    """The effect of an entry was seen, whoever caused it: mark it done without waiting for its holder."""
    entries = (outbox.c.task_pk == task_pk, outbox.c.run == run, outbox.c.kind == kind, outbox.c.done_at.is_(None))
    conn.execute(sa.update(outbox).where(*entries).values(done_at=at, held_until=None, error=None))


def postpone(conn: Connection, entry: OutboxEntry, at: datetime, why: str, wait: float | None = None) -> None:
    """Try again later: after `wait` seconds where the other side said so, else ever more rarely."""
    pause = timedelta(seconds=wait) if wait else min(FIRST_WAIT * 2 ** min(entry.tries, TRIES), LONGEST_WAIT)
    values = {"due_at": at + pause, "held_until": None, "error": why[:2000]}
    conn.execute(sa.update(outbox).where(outbox.c.id == entry.id).values(**values))


def give_up(conn: Connection, id_: int, at: datetime, why: str) -> None:
    conn.execute(sa.update(outbox).where(outbox.c.id == id_).values(given_up_at=at, held_until=None, error=why[:2000]))


def of_task(conn: Connection, task_pk: int) -> list[OutboxEntry]:
    query = sa.select(outbox).where(outbox.c.task_pk == task_pk).order_by(outbox.c.id)
    return [entry_of(row) for row in conn.execute(query).mappings()]


def count_given_up(conn: Connection) -> int:
    """How many outbox were refused and will not be paid."""
    query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.given_up_at.is_not(None))
    return int(conn.execute(query).scalar_one())


def entry_of(row: Row) -> OutboxEntry:
    """A row of the table as an OutboxEntry."""
    return OutboxEntry(**{**row, "kind": OutboxKind(row["kind"])})

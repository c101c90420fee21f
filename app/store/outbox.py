"""Stores outbox entries, and queues them: take, finish, postpone, give up."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.lifecycle import OutboxKind
from app.domain.outbox import OutboxEntry
from app.store.tables import Row, outbox
from app.store.work_queue import WorkQueue

QUEUE = WorkQueue(outbox, hold=timedelta(seconds=45), longest_wait=timedelta(minutes=5), reason="error")
LONGEST_ERROR = 2000  # characters
_OPEN = (outbox.c.done_at.is_(None), outbox.c.given_up_at.is_(None))


def take(conn: Connection, kinds: Iterable[OutboxKind], at: datetime, most: int = 20) -> list[OutboxEntry]:
    """Due entries of these kinds that nobody holds, oldest first. They are held for QUEUE.hold.

    An entry waits while an older one of the same kind and task is open.
    """
    older = outbox.alias()
    older_is_open = sa.exists().where(
        older.c.task_pk == outbox.c.task_pk, older.c.kind == outbox.c.kind, older.c.id < outbox.c.id,
        older.c.done_at.is_(None), older.c.given_up_at.is_(None),
    )  # fmt: skip
    wanted = (*_OPEN, outbox.c.kind.in_(list(kinds)), ~older_is_open)
    return [_entry_of(row) for row in QUEUE.take(conn, at, wanted, outbox.c.id, most)]


def done(conn: Connection, id_: int, at: datetime) -> None:
    QUEUE.finish(conn, [id_], done_at=at, error=None)


def done_for_run(conn: Connection, task_pk: int, run: int, kind: OutboxKind, at: datetime) -> None:
    """The effect of an entry was seen: mark it done without waiting for its holder."""
    entries = (outbox.c.task_pk == task_pk, outbox.c.run == run, outbox.c.kind == kind, outbox.c.done_at.is_(None))
    conn.execute(sa.update(outbox).where(*entries).values(done_at=at, held_until=None, error=None))


def postpone(conn: Connection, entry: OutboxEntry, at: datetime, why: str, wait: float | None = None) -> None:
    """Try the entry again: after `wait` seconds where the other side said so, else after the back-off."""
    QUEUE.postpone(conn, [entry.id], entry.tries, at, why[:LONGEST_ERROR], wait)


def give_up(conn: Connection, id_: int, at: datetime, why: str) -> None:
    QUEUE.finish(conn, [id_], given_up_at=at, error=why[:LONGEST_ERROR])


def of_task(conn: Connection, task_pk: int) -> list[OutboxEntry]:
    """All entries of a task, oldest first."""
    query = sa.select(outbox).where(outbox.c.task_pk == task_pk).order_by(outbox.c.id)
    return [_entry_of(row) for row in conn.execute(query).mappings()]


def count_given_up(conn: Connection) -> int:
    """How many entries were refused and given up."""
    query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.given_up_at.is_not(None))
    return int(conn.execute(query).scalar_one())


def _entry_of(row: Row) -> OutboxEntry:
    return OutboxEntry(**{**row, "kind": OutboxKind(row["kind"])})

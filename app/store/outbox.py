"""What we owe the outside: held while it is paid, tried again with back-off, given up where all can see it."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.lifecycle import OutboxKind
from app.store.tables import Row, debts

HOLD = timedelta(seconds=45)
TRIES = 12
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(minutes=5)


def take(conn: Connection, kinds: Iterable[OutboxKind], at: datetime, most: int = 20) -> list[Row]:
    """Open debts of these kinds that nobody else holds, oldest first, and never one whose older sibling of the
    same kind and task is still open. They are ours for HOLD; a payer that dies lets them go by that."""
    older = debts.alias()
    open_ = (debts.c.paid_at.is_(None), debts.c.given_up_at.is_(None))
    elder_open = sa.exists().where(
        older.c.task_pk == debts.c.task_pk, older.c.kind == debts.c.kind, older.c.id < debts.c.id,
        older.c.paid_at.is_(None), older.c.given_up_at.is_(None),
    )  # fmt: skip
    free = sa.or_(debts.c.held_until.is_(None), debts.c.held_until <= at)
    chosen = (
        sa.select(debts.c.id)
        .where(*open_, debts.c.kind.in_(list(kinds)), debts.c.due_at <= at, free, ~elder_open)
        .order_by(debts.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    hold = sa.update(debts).where(debts.c.id.in_(chosen)).values(held_until=at + HOLD, tries=debts.c.tries + 1)
    return sorted(conn.execute(hold.returning(debts)).mappings(), key=lambda row: int(row["id"]))


def paid(conn: Connection, id_: int, at: datetime) -> None:
    conn.execute(sa.update(debts).where(debts.c.id == id_).values(paid_at=at, held_until=None, error=None))


def carried_out(conn: Connection, task_pk: int, run: int, kind: OutboxKind, at: datetime) -> None:
    """What was owed for a run is seen to be done, by whomever: nobody need wait until its payer lets it go."""
    owed = (debts.c.task_pk == task_pk, debts.c.run == run, debts.c.kind == kind, debts.c.paid_at.is_(None))
    conn.execute(sa.update(debts).where(*owed).values(paid_at=at, held_until=None, error=None))


def postpone(conn: Connection, debt: Row, at: datetime, why: str, wait: float | None = None) -> None:
    """Try again later: after `wait` seconds where the other side said so, else ever more rarely."""
    pause = timedelta(seconds=wait) if wait else min(FIRST_WAIT * 2 ** min(debt["tries"], TRIES), LONGEST_WAIT)
    values = {"due_at": at + pause, "held_until": None, "error": why[:2000]}
    conn.execute(sa.update(debts).where(debts.c.id == debt["id"]).values(**values))


def give_up(conn: Connection, id_: int, at: datetime, why: str) -> None:
    conn.execute(sa.update(debts).where(debts.c.id == id_).values(given_up_at=at, held_until=None, error=why[:2000]))


def of_task(conn: Connection, task_pk: int) -> list[Row]:
    return list(conn.execute(sa.select(debts).where(debts.c.task_pk == task_pk).order_by(debts.c.id)).mappings())


def count_given_up(conn: Connection) -> int:
    """How many debts were refused and will not be paid."""
    query = sa.select(sa.func.count()).select_from(debts).where(debts.c.given_up_at.is_not(None))
    return int(conn.execute(query).scalar_one())

"""When each round ran last, so that an absence of the whole control plane can be told from silence of a runner."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import periodic_jobs


def record_run(conn: Connection, name: str, at: datetime) -> timedelta | None:
    """Note that the round `name` runs at `at`; returns how long ago it ran before, None the first time."""
    before = conn.execute(
        sa.select(periodic_jobs.c.ran_at).where(periodic_jobs.c.name == name).with_for_update()
    ).scalar()
    statement = insert(periodic_jobs).values(name=name, ran_at=at)
    newest = sa.func.greatest(periodic_jobs.c.ran_at, statement.excluded.ran_at)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"ran_at": newest}))
    return at - before if before else None


def last_run(conn: Connection, name: str) -> datetime | None:
    """When the round `name` ran last; None if it never did."""
    return conn.execute(sa.select(periodic_jobs.c.ran_at).where(periodic_jobs.c.name == name)).scalar()


def last_runs(conn: Connection, prefix: str) -> dict[str, datetime]:
    """When each of the rounds whose names begin so ran last."""
    rows = conn.execute(sa.select(periodic_jobs).where(periodic_jobs.c.name.startswith(prefix, autoescape=True)))
    return {row.name: row.ran_at for row in rows}


def is_due(conn: Connection, name: str, at: datetime, every: timedelta) -> bool:
    """Whether the round `name` is due; the one caller who hears yes has it."""
    statement = insert(periodic_jobs).values(name=name, ran_at=at)
    due = sa.or_(periodic_jobs.c.ran_at <= at - every, periodic_jobs.c.ran_at > at)  # the clock was set back
    taken = statement.on_conflict_do_update(index_elements=["name"], set_={"ran_at": at}, where=due).returning(
        periodic_jobs.c.name
    )
    return conn.execute(taken).first() is not None

"""Remembers when each periodic job ran last: to run it not too often, and to notice that the control plane was down."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import periodic_jobs


def record_run(conn: Connection, name: str, at: datetime) -> timedelta | None:
    """Record that the job `name` runs at `at`; returns how long ago it ran before, None the first time."""
    before = conn.execute(
        sa.select(periodic_jobs.c.ran_at).where(periodic_jobs.c.name == name).with_for_update()
    ).scalar()
    statement = insert(periodic_jobs).values(name=name, ran_at=at)
    newest = sa.func.greatest(periodic_jobs.c.ran_at, statement.excluded.ran_at)
    conn.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"ran_at": newest}))
    return at - before if before else None


def last_run(conn: Connection, name: str) -> datetime | None:
    """When the job `name` ran last; None if it never did."""
    return conn.execute(sa.select(periodic_jobs.c.ran_at).where(periodic_jobs.c.name == name)).scalar()


def last_runs(conn: Connection, prefix: str) -> dict[str, datetime]:
    """When each job whose name begins with `prefix` ran last."""
    rows = conn.execute(sa.select(periodic_jobs).where(periodic_jobs.c.name.startswith(prefix, autoescape=True)))
    return {row.name: row.ran_at for row in rows}


def is_due(conn: Connection, name: str, at: datetime, every: timedelta) -> bool:
    """Whether the job `name` is due. One caller gets True, and must run it."""
    statement = insert(periodic_jobs).values(name=name, ran_at=at)
    due = sa.or_(periodic_jobs.c.ran_at <= at - every, periodic_jobs.c.ran_at > at)  # the clock was set back
    taken = statement.on_conflict_do_update(index_elements=["name"], set_={"ran_at": at}, where=due).returning(
        periodic_jobs.c.name
    )
    return conn.execute(taken).first() is not None

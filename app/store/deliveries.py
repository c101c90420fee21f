"""The inbox: webhook requests as they came in, stored before they are answered, applied later."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import Row, deliveries

HOLD = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=2)


def keep(conn: Connection, forge: str, delivery_id: str, event: str, body: bytes, at: datetime) -> bool:
    """Store a delivery; False when this id is here already."""
    values = {
        "forge": forge,
        "delivery_id": delivery_id,
        "event": event,
        "body": body,
        "received_at": at,
        "due_at": at,
    }
    made = conn.execute(insert(deliveries).values(**values).on_conflict_do_nothing().returning(deliveries.c.id))
    return made.first() is not None


def take(conn: Connection, at: datetime, most: int = 20) -> list[Row]:
    """Deliveries to apply, oldest first, ours for HOLD."""
    free = sa.or_(deliveries.c.held_until.is_(None), deliveries.c.held_until <= at)
    chosen = (
        sa.select(deliveries.c.id)
        .where(deliveries.c.applied_at.is_(None), deliveries.c.due_at <= at, free)
        .order_by(deliveries.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    hold = (
        sa.update(deliveries)
        .where(deliveries.c.id.in_(chosen))
        .values(held_until=at + HOLD, tries=deliveries.c.tries + 1)
    )
    return sorted(conn.execute(hold.returning(deliveries)).mappings(), key=lambda row: int(row["id"]))


def applied(conn: Connection, id_: int, at: datetime, result: str, why: str) -> None:
    values = {"applied_at": at, "held_until": None, "result": result, "why": why[:1000]}
    conn.execute(sa.update(deliveries).where(deliveries.c.id == id_).values(**values))


def postpone(conn: Connection, delivery: Row, at: datetime, why: str, wait: float | None = None) -> None:
    """The forge did not answer: look at this delivery again later."""
    pause = (
        timedelta(seconds=wait) if wait else min(timedelta(seconds=1) * 2 ** min(delivery["tries"], 8), LONGEST_WAIT)
    )
    values = {"due_at": at + pause, "held_until": None, "why": why[:1000]}
    conn.execute(sa.update(deliveries).where(deliveries.c.id == delivery["id"]).values(**values))

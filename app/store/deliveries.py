"""The inbox: webhook requests as they came in, stored before they are answered, applied later."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.engine import together
from app.store.tables import Row, deliveries

HOLD = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=2)
REFUSED = "a delivery was refused"  # the round that says when one with a wrong signature came last
WAITING = "waiting"


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


def unread(conn: Connection, most: int = 50) -> list[Row]:
    """Deliveries of which nobody has seen yet what they are about, oldest first, ours for this transaction."""
    new = (deliveries.c.applied_at.is_(None), deliveries.c.subject.is_(None))
    query = sa.select(deliveries).where(*new).order_by(deliveries.c.id).limit(most)
    return list(conn.execute(query.with_for_update(skip_locked=True)).mappings())


def sort(conn: Connection, subjects: Mapping[int, str]) -> None:
    """Note what deliveries (by their number) are about: those of one thing wait together."""
    together(conn, (_SORT, {"ids": list(subjects), "subjects": list(subjects.values())}))


_SORT = """
UPDATE deliveries d SET subject = n.subject FROM unnest(%(ids)s::bigint[], %(subjects)s::text[]) AS n (id, subject)
WHERE d.id = n.id RETURNING d.id
"""


def take(conn: Connection, at: datetime, most: int = 50) -> list[Row]:
    """All that waits about one thing, oldest first, ours for HOLD: the thing whose oldest delivery is due for longest,
    and that nobody else is looking into."""
    given = {"at": at, "until": at + HOLD, "most": most}
    return sorted(together(conn, (_TAKE, given))[0], key=lambda row: int(row["id"]))


_TAKE = """
WITH first AS (
    SELECT d.forge, d.subject FROM deliveries d
    WHERE d.applied_at IS NULL AND d.subject IS NOT NULL AND d.due_at <= %(at)s
        AND (d.held_until IS NULL OR d.held_until <= %(at)s)
        AND NOT EXISTS (
            SELECT FROM deliveries h WHERE h.forge = d.forge AND h.subject = d.subject AND h.applied_at IS NULL
                AND h.subject IS NOT NULL AND h.held_until > %(at)s)
    ORDER BY d.due_at, d.id LIMIT 1 FOR UPDATE OF d SKIP LOCKED
), those AS (
    SELECT d.id FROM first f JOIN deliveries d ON d.forge = f.forge AND d.subject = f.subject
    WHERE d.applied_at IS NULL AND d.subject IS NOT NULL
    ORDER BY d.id LIMIT %(most)s FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET held_until = %(until)s, tries = d.tries + 1 FROM those t WHERE d.id = t.id RETURNING d.*
"""


def applied(conn: Connection, ids: Iterable[int], at: datetime, result: str, why: str) -> None:
    values = {"applied_at": at, "held_until": None, "result": result, "why": why[:1000]}
    conn.execute(sa.update(deliveries).where(deliveries.c.id.in_(list(ids))).values(**values))


def postpone(conn: Connection, those: list[Row], at: datetime, why: str, wait: float | None = None) -> None:
    """The forge did not answer: look at these deliveries again later."""
    tries = max(delivery["tries"] for delivery in those)
    pause = timedelta(seconds=wait) if wait else min(timedelta(seconds=1) * 2 ** min(tries, 8), LONGEST_WAIT)
    values = {"due_at": at + pause, "held_until": None, "why": why[:1000]}
    conn.execute(sa.update(deliveries).where(deliveries.c.id.in_([row["id"] for row in those])).values(**values))


def listed(conn: Connection, status: str | None = None, limit: int = 50) -> list[Row]:
    """Deliveries, newest first, without their bodies: all, or those with this result, or `waiting` ones."""
    columns = [column for column in deliveries.c if column.name != "body"]
    query = sa.select(*columns, sa.func.length(deliveries.c.body).label("size")).order_by(deliveries.c.id.desc())
    if status == WAITING:
        query = query.where(deliveries.c.applied_at.is_(None))
    elif status:
        query = query.where(deliveries.c.result == status)
    return list(conn.execute(query.limit(limit)).mappings())


def get(conn: Connection, key: str) -> Row | None:
    """A delivery by our number or by the id that the forge gave it."""
    ours = deliveries.c.id == int(key) if key.isdigit() and len(key) < 18 else sa.false()
    query = sa.select(deliveries).where(sa.or_(ours, deliveries.c.delivery_id == key)).order_by(deliveries.c.id.desc())
    return conn.execute(query.limit(1)).mappings().first()


def again(conn: Connection, id_: int, at: datetime) -> None:
    """Have a delivery applied once more. It is a hint, so that does no harm."""
    values = {"applied_at": None, "result": None, "why": None, "due_at": at, "held_until": None, "tries": 0}
    conn.execute(sa.update(deliveries).where(deliveries.c.id == id_).values(**values))


def newest_test(conn: Connection, forge: str, after: datetime) -> bool:
    """Whether a test delivery of this forge came in since then."""
    where = (deliveries.c.forge == forge, deliveries.c.event == "push", deliveries.c.received_at >= after)
    return bool(conn.execute(sa.select(sa.exists().where(*where))).scalar())


def last_heard(conn: Connection) -> dict[str, datetime]:
    """When each forge last brought a delivery."""
    newest = sa.func.max(deliveries.c.received_at)
    rows = conn.execute(sa.select(deliveries.c.forge, newest).group_by(deliveries.c.forge))
    return {row[0]: row[1] for row in rows}


def sweep(conn: Connection, before: datetime, most: int = 5000) -> int:
    """Delete deliveries that were applied before then, some at a time, from the oldest on; returns how many."""
    old = sa.select(deliveries.c.id).order_by(deliveries.c.id).limit(most).scalar_subquery()
    where = (deliveries.c.id.in_(old), deliveries.c.applied_at < before)
    return conn.execute(sa.delete(deliveries).where(*where)).rowcount

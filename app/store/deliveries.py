"""Stores webhook deliveries as they were received, and queues them by subject until they are applied."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.delivery import Delivery
from app.store.engine import run_together
from app.store.tables import Row, deliveries
from app.store.work_queue import WorkQueue

QUEUE = WorkQueue(deliveries, hold=timedelta(seconds=30), longest_wait=timedelta(minutes=2), reason="why")
REFUSED = "a delivery was refused"  # the periodic job whose time says when a wrong signature was seen last
WAITING = "waiting"
_SIZE = sa.func.length(deliveries.c.body).label("size")


def add(conn: Connection, forge: str, delivery_id: str, event: str, body: bytes, at: datetime) -> bool:
    """Store a delivery; False if this id is stored already."""
    values = {"forge": forge, "delivery_id": delivery_id, "event": event, "body": body, "received_at": at, "due_at": at}
    made = conn.execute(insert(deliveries).values(**values).on_conflict_do_nothing().returning(deliveries.c.id))
    return made.first() is not None


def without_subject(conn: Connection, most: int = 50) -> list[Delivery]:
    """Deliveries that were not parsed yet, oldest first, locked for this transaction."""
    new = (deliveries.c.applied_at.is_(None), deliveries.c.subject.is_(None))
    query = sa.select(deliveries, _SIZE).where(*new).order_by(deliveries.c.id).limit(most)
    return [_delivery(row) for row in conn.execute(query.with_for_update(skip_locked=True)).mappings()]


def set_subjects(conn: Connection, subjects: Mapping[int, str]) -> None:
    """Store the subjects of deliveries by their id. Deliveries with the same subject are taken together."""
    run_together(conn, (_SET_SUBJECTS, {"ids": list(subjects), "subjects": list(subjects.values())}))


_SET_SUBJECTS = """
UPDATE deliveries d SET subject = n.subject FROM unnest(%(ids)s::bigint[], %(subjects)s::text[]) AS n (id, subject)
WHERE d.id = n.id RETURNING d.id
"""


def take(conn: Connection, at: datetime, most: int = 50) -> list[Delivery]:
    """All waiting deliveries of one subject, oldest first, held for QUEUE.hold.

    The subject is the one whose oldest delivery is due for longest and that no other process holds.
    """
    given = {"at": at, "until": at + QUEUE.hold, "most": most}
    return sorted(map(_delivery, run_together(conn, (_TAKE, given))[0]), key=lambda delivery: delivery.id)


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
UPDATE deliveries d SET held_until = %(until)s, tries = d.tries + 1 FROM those t WHERE d.id = t.id
RETURNING d.*, length(d.body) AS size
"""


def mark_applied(conn: Connection, ids: Iterable[int], at: datetime, result: str, why: str) -> None:
    QUEUE.finish(conn, ids, applied_at=at, result=result, why=why[:1000])


def postpone(conn: Connection, held: Sequence[Delivery], at: datetime, why: str, wait: float | None = None) -> None:
    """Apply these deliveries again after `wait` seconds, or after the back-off."""
    tries = max(delivery.tries for delivery in held)
    QUEUE.postpone(conn, [delivery.id for delivery in held], tries, at, why[:1000], wait)


def list_deliveries(conn: Connection, status: str | None = None, limit: int = 50) -> list[Delivery]:
    """Deliveries without their bodies, newest first: all, or those with this result, or WAITING ones."""
    columns = [column for column in deliveries.c if column.name != "body"]
    query = sa.select(*columns, _SIZE, sa.literal(b"").label("body")).order_by(deliveries.c.id.desc())
    if status == WAITING:
        query = query.where(deliveries.c.applied_at.is_(None))
    elif status:
        query = query.where(deliveries.c.result == status)
    return [_delivery(row) for row in conn.execute(query.limit(limit)).mappings()]


def find(conn: Connection, key: str) -> Delivery | None:
    """A delivery by our id, or by the forge's."""
    ours = deliveries.c.id == int(key) if key.isdigit() and len(key) < 18 else sa.false()
    query = sa.select(deliveries, _SIZE).where(sa.or_(ours, deliveries.c.delivery_id == key))
    row = conn.execute(query.order_by(deliveries.c.id.desc()).limit(1)).mappings().first()
    return _delivery(row) if row else None


def apply_again(conn: Connection, id_: int, at: datetime) -> None:
    """Queue a delivery once more. This is safe, since it is only a hint."""
    values = {"applied_at": None, "result": None, "why": None, "due_at": at, "held_until": None, "tries": 0}
    conn.execute(sa.update(deliveries).where(deliveries.c.id == id_).values(**values))


def has_test_since(conn: Connection, forge: str, after: datetime) -> bool:
    """Whether a test delivery of this forge was received since `after`. The forge sends it as a push."""
    where = (deliveries.c.forge == forge, deliveries.c.event == "push", deliveries.c.received_at >= after)
    return bool(conn.execute(sa.select(sa.exists().where(*where))).scalar())


def last_received(conn: Connection) -> dict[str, datetime]:
    """When the newest delivery of each forge was received."""
    newest = sa.func.max(deliveries.c.received_at)
    rows = conn.execute(sa.select(deliveries.c.forge, newest).group_by(deliveries.c.forge))
    return {row[0]: row[1] for row in rows}


def delete_applied(conn: Connection, before: datetime, most: int = 5000) -> int:
    """Delete deliveries that were applied before then, at most `most` at once, oldest first; returns how many."""
    old = sa.select(deliveries.c.id).order_by(deliveries.c.id).limit(most).scalar_subquery()
    where = (deliveries.c.id.in_(old), deliveries.c.applied_at < before)
    return conn.execute(sa.delete(deliveries).where(*where)).rowcount


def _delivery(row: Row) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})

"""Reads events: of one task by their kind or number, and of all tasks for a replay. store/tasks.py writes them."""

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.event import Event
from app.domain.lifecycle import FactKind
from app.domain.task import State
from app.store.tables import Row, events

_BEGIN_A_RUN = (FactKind.PLACED, FactKind.CLAIMED, FactKind.CHANGES_REQUESTED, FactKind.CONFLICTED)


def of_task(conn: Connection, task_pk: int) -> list[Event]:
    """All events of a task, oldest first."""
    query = sa.select(events).where(events.c.task_pk == task_pk).order_by(events.c.seq)
    return [event_of(row) for row in conn.execute(query).mappings()]


def of_kinds(conn: Connection, task_pk: int, kinds: Iterable[FactKind]) -> list[Event]:
    """The events of these kinds, oldest first."""
    query = sa.select(events).where(events.c.task_pk == task_pk, events.c.kind.in_(list(kinds)))
    return [event_of(row) for row in conn.execute(query.order_by(events.c.seq)).mappings()]


def newest(conn: Connection, task_pk: int, *kinds: FactKind) -> Event | None:
    """The newest event of these kinds."""
    query = sa.select(events).where(events.c.task_pk == task_pk, events.c.kind.in_(kinds))
    row = conn.execute(query.order_by(events.c.seq.desc()).limit(1)).mappings().first()
    return event_of(row) if row else None


def get(conn: Connection, task_pk: int, seq: int) -> Event | None:
    row = conn.execute(sa.select(events).where(events.c.task_pk == task_pk, events.c.seq == seq)).mappings().first()
    return event_of(row) if row else None


def last_in_state(conn: Connection, task_pk: int, state: State) -> int:
    """The number of the newest event that left the task in this state; 0 if none did."""
    query = sa.select(events.c.seq).where(events.c.task_pk == task_pk, events.c.to_state == state)
    return int(conn.execute(query.order_by(events.c.seq.desc()).limit(1)).scalar() or 0)


def newest_detail(conn: Connection, task_pk: int, name: str | None) -> str | None:
    """The value of `name` in the newest event of the newest run that has one; None for no name."""
    if name is None:
        return None
    begun = sa.select(sa.func.max(events.c.seq)).where(events.c.task_pk == task_pk, events.c.kind.in_(_BEGIN_A_RUN))
    value = events.c.detail[name].astext
    those = (events.c.task_pk == task_pk, events.c.seq >= sa.func.coalesce(begun.scalar_subquery(), 0), value != "")
    return conn.execute(sa.select(value).where(*those).order_by(events.c.seq.desc()).limit(1)).scalar()


def all_events(conn: Connection) -> Iterator[Event]:
    """Every event of every task, in order. A server-side cursor: read them as they come."""
    query = sa.select(events).order_by(events.c.task_pk, events.c.seq)
    return map(event_of, conn.execution_options(yield_per=1000).execute(query).mappings())


def event_of(row: Row) -> Event:
    """A row of the table as an Event."""
    before = State(row["from_state"]) if row["from_state"] else None
    named = {"kind": FactKind(row["kind"]), "from_state": before, "to_state": State(row["to_state"])}
    return Event(**{**row, **named})

"""Runs as rows: leases, ends and logs. A run's end is recorded once; its log has no gap and no repeat."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import Row, logs, runs


def get(conn: Connection, task_pk: int, number: int) -> Row | None:
    return _first(conn, runs.c.task_pk == task_pk, runs.c.number == number)


def named(conn: Connection, name: str) -> Row | None:
    return _first(conn, runs.c.name == name)


def of_task(conn: Connection, task_pk: int) -> list[Row]:
    return list(conn.execute(sa.select(runs).where(runs.c.task_pk == task_pk).order_by(runs.c.number)).mappings())


def open_on_hosts(conn: Connection) -> list[Row]:
    """Every run on a host that has not ended as far as we know, with its host."""
    query = sa.select(runs).where(runs.c.ended_at.is_(None), runs.c.host_id.is_not(None)).order_by(runs.c.id)
    return list(conn.execute(query).mappings())


def open_of_agent(conn: Connection, agent_id: str) -> list[Row]:
    """Every run of an agent that has not ended as far as we know."""
    query = sa.select(runs).where(runs.c.agent_id == agent_id, runs.c.ended_at.is_(None)).order_by(runs.c.id)
    return list(conn.execute(query).mappings())


def handed(conn: Connection, run_id: int) -> None:
    """Its agent has heard of the run."""
    _update(conn, run_id, handed=True)


def noted(conn: Connection, run_id: int, message: str | None, progress: Any) -> None:
    """What the runner says of how far it is."""
    _update(conn, run_id, message=message, progress=progress)


def taken_slots(conn: Connection) -> dict[tuple[str, str], int]:
    """How many runs each (host, kind of CLI) has now."""
    query = (
        sa.select(runs.c.host_id, runs.c.agent_type, sa.func.count())
        .where(runs.c.ended_at.is_(None), runs.c.host_id.is_not(None))
        .group_by(runs.c.host_id, runs.c.agent_type)
    )
    return {(host, kind): count for host, kind, count in conn.execute(query)}


def started(conn: Connection, run_id: int, at: datetime, deadline: datetime) -> None:
    _update(conn, run_id, started_at=at, seen_at=at, deadline=deadline)


def beat(conn: Connection, run_id: int, at: datetime, deadline: datetime) -> None:
    """The run was seen alive: its lease runs until `deadline`."""
    _update(conn, run_id, seen_at=at, deadline=deadline)


def ended(conn: Connection, run_id: int, at: datetime, end: str, **rest: Any) -> bool:
    """Write down the end of a run (`result`, `outcome`, `session` in `rest`); False when it had ended before."""
    return _update(conn, run_id, ended_at=at, end=end, deadline=None, **rest)


def keep_session(conn: Connection, run_id: int, session: str | None) -> None:
    _update(conn, run_id, session=session)


def expired(conn: Connection, run_id: int, at: datetime) -> bool:
    """End a run whose lease is over; False when it was renewed or ended meanwhile."""
    believed = (runs.c.id == run_id, runs.c.ended_at.is_(None), runs.c.deadline <= at)
    values = {"ended_at": at, "end": "expired", "deadline": None}
    return conn.execute(sa.update(runs).where(*believed).values(**values)).rowcount == 1


def silent(conn: Connection, at: datetime, on_hosts_only: bool, most: int = 200) -> list[Row]:
    """Runs whose lease is over."""
    over = [runs.c.deadline <= at, runs.c.ended_at.is_(None)]
    if on_hosts_only:
        over.append(runs.c.host_id.is_not(None))
    query = sa.select(runs).where(*over).order_by(runs.c.deadline).limit(most)
    return list(conn.execute(query).mappings())


def extend_leases(conn: Connection, gap: timedelta, on_hosts: bool) -> int:
    """We were away for `gap`: nobody loses a lease for having been unable to reach us, or to be reached."""
    theirs = runs.c.host_id.is_not(None) if on_hosts else runs.c.agent_id.is_not(None)
    open_ = (theirs, runs.c.ended_at.is_(None), runs.c.deadline.is_not(None))
    return conn.execute(sa.update(runs).where(*open_).values(deadline=runs.c.deadline + gap)).rowcount


def append_log(conn: Connection, run_id: int, stream: str, offset: int, data: bytes) -> int:
    """Store the bytes of a stream from `offset`; what is there already is not stored again. Returns the size now.
    A piece that would leave a gap is not stored."""
    column = runs.c[f"{stream}_size"]
    size: int = conn.execute(sa.select(column).where(runs.c.id == run_id).with_for_update()).scalar_one()
    news = data[size - offset :] if offset <= size else b""
    if news:
        conn.execute(insert(logs).values(run_id=run_id, stream=stream, offset=size, data=news))
        conn.execute(sa.update(runs).where(runs.c.id == run_id).values({column: size + len(news)}))
    return size + len(news)


def read_log(conn: Connection, run_id: int, stream: str, offset: int = 0, most: int | None = None) -> bytes:
    """A stream as far as it is known, from `offset`; at most `most` bytes of it."""
    begins = logs.c.offset + sa.func.length(logs.c.data) > offset
    query = sa.select(logs).where(logs.c.run_id == run_id, logs.c.stream == stream, begins).order_by(logs.c.offset)
    data = bytearray()
    for row in conn.execute(query):
        data += row.data[max(0, offset - row.offset) :]
        if most is not None and len(data) >= most:
            break
    return bytes(data[:most])


def log_pieces(conn: Connection, run_id: int, stream: str, offset: int) -> Iterator[tuple[int, bytes]]:
    """A stream from `offset` in the pieces in which it was stored, one at a time: (offset, bytes)."""
    begins = logs.c.offset + sa.func.length(logs.c.data) > offset
    query = sa.select(logs).where(logs.c.run_id == run_id, logs.c.stream == stream, begins).order_by(logs.c.offset)
    for row in conn.execution_options(yield_per=4).execute(query):
        skip = max(0, offset - row.offset)
        yield row.offset + skip, row.data[skip:]


def _first(conn: Connection, *where: sa.ColumnElement[bool]) -> Row | None:
    return conn.execute(sa.select(runs).where(*where)).mappings().first()


def _update(conn: Connection, run_id: int, **values: Any) -> bool:
    still_open = (runs.c.id == run_id, runs.c.ended_at.is_(None))
    return conn.execute(sa.update(runs).where(*still_open).values(**values)).rowcount == 1

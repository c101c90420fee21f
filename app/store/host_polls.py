"""Stores polls of hosts: when each is due, which worker holds it, and since when a host does not answer."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store import runs as run_rows
from app.store.engine import run_together
from app.store.tables import Row, host_polls, runs
from app.store.work_queue import lock_once

HOLD = timedelta(seconds=10)  # a host stays held for this long after its worker died
_HAS_OPEN_RUNS = sa.exists().where(runs.c.host_id == host_polls.c.host_id, runs.c.ended_at.is_(None))


def _has_something_to_say(at: datetime) -> sa.ColumnElement[bool]:
    unheard = sa.exists().where(runs.c.host_id == host_polls.c.host_id, *run_rows.awaiting_result(at))
    return sa.or_(_HAS_OPEN_RUNS, unheard)


def take(conn: Connection, holder: str, at: datetime, most: int, failing: bool = False) -> list[str]:
    """Hold up to `most` hosts for `holder` that are due, have runs to poll for, and are held by no other worker.

    Hosts that did not answer (`failing`) are taken separately, so that they cannot occupy every thread.
    """
    free = sa.or_(host_polls.c.held_until.is_(None), host_polls.c.held_until <= at)
    kind = host_polls.c.failing_since.is_not(None) if failing else host_polls.c.failing_since.is_(None)
    due = (
        sa.select(host_polls.c.host_id)
        .where(host_polls.c.next_at <= at, free, kind, _has_something_to_say(at))
        .order_by(host_polls.c.next_at)
        .limit(most)
    )
    taken = (
        sa.update(host_polls)
        .where(host_polls.c.host_id.in_(lock_once(due)))
        .values(holder=holder, held_until=at + HOLD)
    )
    return list(conn.execute(taken.returning(host_polls.c.host_id)).scalars())


def begin(conn: Connection, at: datetime) -> None:
    """Insert a row for every host with open runs. Hosts of expired runs have one already."""
    busy = (
        sa.select(runs.c.host_id, sa.literal(at))
        .where(runs.c.ended_at.is_(None), runs.c.host_id.is_not(None))
        .distinct()
    )
    new = sa.and_(~sa.exists().where(host_polls.c.host_id == runs.c.host_id))
    conn.execute(insert(host_polls).from_select(["host_id", "next_at"], busy.where(new)).on_conflict_do_nothing())


def renew(conn: Connection, holder: str, host_ids: Iterable[str], at: datetime) -> None:
    """`holder` still polls these hosts."""
    mine = (host_polls.c.holder == holder, host_polls.c.host_id.in_(list(host_ids)))
    conn.execute(sa.update(host_polls).where(*mine).values(held_until=at + HOLD))


class Answered(NamedTuple):
    """A host that answered a poll."""

    host_id: str
    news: bool  # a log grew, a step changed or a run ended
    disk_free: int | None  # bytes
    alive: list[int]  # ids of its runs


def answered(conn: Connection, holder: str, at: datetime, every: tuple[float, float], seen: Sequence[Answered]) -> None:
    """Save that these hosts answered. The next poll is due after `every[0]` seconds while there is news.

    Without news the pause grows up to `every[1]` seconds.
    """
    given = {
        "holder": holder,
        "at": at,
        "fast": every[0],
        "slow": max(every),
        "hosts": [one.host_id for one in seen],
        "news": [one.news for one in seen],
        "disk": [one.disk_free for one in seen],
    }
    run_together(conn, (_ANSWERED, given))


_ANSWERED = """
UPDATE host_polls SET
    next_at = %(at)s + make_interval(secs => least(%(fast)s * 1.5 ^ least(seen.quiet, 30), %(slow)s)),
    consecutive = seen.quiet, holder = NULL, held_until = NULL, tried_at = %(at)s, answered_at = %(at)s,
    failing_since = NULL, why = NULL, disk_free = seen.disk_free
FROM (
    SELECT l.host_id, told.disk_free,
        CASE WHEN told.news OR l.failing_since IS NOT NULL THEN 0 ELSE l.consecutive + 1 END AS quiet
    FROM unnest(CAST(%(hosts)s AS text[]), CAST(%(news)s AS boolean[]), CAST(%(disk)s AS bigint[]))
        AS told (host_id, news, disk_free)
    JOIN host_polls l USING (host_id) WHERE l.holder = %(holder)s FOR UPDATE OF l
) seen
WHERE host_polls.host_id = seen.host_id
RETURNING host_polls.host_id
"""


def failed(conn: Connection, holder: str, host_id: str, at: datetime, every: tuple[float, float], why: str) -> None:
    """Save that the host did not answer. The pause until the next poll grows from `every[0]` to `every[1]` seconds."""
    row = _mine(conn, holder, host_id)
    if row is not None:
        tries = row["consecutive"] + 1 if row["failing_since"] else 1
        wait = min(every[0] * 2 ** min(tries, 30), max(every))
        let_go = {"next_at": at + timedelta(seconds=wait), "holder": None, "held_until": None, "consecutive": tries}
        since = row["failing_since"] or at
        conn.execute(
            sa.update(host_polls)
            .where(host_polls.c.host_id == host_id)
            .values(**let_go, tried_at=at, failing_since=since, why=why[:2000])
        )


def hurry(conn: Connection, host_id: str, at: datetime) -> None:
    """Make the next poll due now: a run was started on the host, or a person follows its log."""
    conn.execute(
        sa.update(host_polls)
        .where(host_polls.c.host_id == host_id, host_polls.c.next_at > at)
        .values(next_at=at, consecutive=0)
    )


def of(conn: Connection, host_id: str) -> Row | None:
    return conn.execute(sa.select(host_polls).where(host_polls.c.host_id == host_id)).mappings().first()


def _mine(conn: Connection, holder: str, host_id: str) -> Row | None:
    """The row; None if another worker took the host meanwhile."""
    mine = (host_polls.c.host_id == host_id, host_polls.c.holder == holder)
    return conn.execute(sa.select(host_polls).where(*mine).with_for_update()).mappings().first()

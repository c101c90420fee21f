"""Tables as work queues: take rows, hold them while they are worked on, postpone them with a growing back-off.

Such a table has the columns `id`, `due_at`, `held_until` and `tries`. The outbox, comment commands and deliveries are
such tables: each declares its WorkQueue in its own file in app/store.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.store.tables import Row

FIRST_WAIT = timedelta(seconds=1)
MOST_DOUBLINGS = 12


@dataclass(frozen=True)
class WorkQueue:
    table: sa.Table
    hold: timedelta  # a process that dies lets its rows go after this time
    longest_wait: timedelta  # the back-off doubles from FIRST_WAIT up to this
    reason: str  # the column for why the newest try failed

    def take(
        self, conn: Connection, at: datetime, open_: Sequence[sa.ColumnElement[bool]], order: sa.Column[int], most: int
    ) -> list[Row]:
        """Up to `most` due rows that nobody holds, in this order. They are held and their tries counted from now on.

        `open_` are the conditions for a row that is not finished.
        """
        columns = self.table.c
        free = sa.or_(columns.held_until.is_(None), columns.held_until <= at)
        chosen = sa.select(columns.id).where(*open_, columns.due_at <= at, free).order_by(order).limit(most)
        hold = (
            sa.update(self.table)
            .where(columns.id.in_(lock_once(chosen)))
            .values(held_until=at + self.hold, tries=columns.tries + 1)
        )
        return sorted(conn.execute(hold.returning(self.table)).mappings(), key=lambda row: int(row[order.name]))

    def finish(self, conn: Connection, ids: Iterable[int], **values: Any) -> None:
        """Write the end of these rows, done or given up, and let them go."""
        rows = self.table.c.id.in_(list(ids))
        conn.execute(sa.update(self.table).where(rows).values(held_until=None, **values))

    def postpone(
        self, conn: Connection, ids: Iterable[int], tries: int, at: datetime, why: str, wait: float | None = None
    ) -> None:
        """Try these rows again: after `wait` seconds where the other side said so, else after the back-off."""
        pause = timedelta(seconds=wait) if wait else self.back_off(tries)
        self.finish(conn, ids, due_at=at + pause, **{self.reason: why})

    def back_off(self, tries: int) -> timedelta:
        doubled: timedelta = FIRST_WAIT * 2 ** min(tries, MOST_DOUBLINGS)
        return min(doubled, self.longest_wait)


def lock_once(keys: sa.Select[Any]) -> sa.Select[Any]:
    """These keys, for the IN of an UPDATE: their rows are locked, and rows that another process locks are skipped.

    The CTE is materialized, since a plain subquery may run again for each row of the update and then pick more rows
    than its LIMIT.
    """
    chosen = keys.with_for_update(skip_locked=True).cte("chosen").prefix_with("MATERIALIZED")
    return sa.select(chosen)

"""Who gets a waiting task: the head of the queue, each row locked so that one task goes to one place."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.task import Mode, Task
from app.store.tables import briefs, capsets, tasks
from app.store.tasks import task_of

PLACING = 0x666C6565  # the advisory lock of whoever hands out host slots


def hold_the_slots(conn: Connection) -> None:
    """One transaction at a time counts free host slots and hands them out."""
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(PLACING)))


Wish = tuple[int, str | None]  # what a task needs: the number of a set of capabilities, and a kind of CLI or any


def waiting_wishes(conn: Connection) -> dict[Wish, frozenset[str]]:
    """The distinct wishes of ready tasks, each with the capabilities that its set holds."""
    query = sa.select(capsets.c.id, briefs.c.cli, capsets.c.names).join_from(tasks, capsets).join(briefs)
    return {(row.id, row.cli): frozenset(row.names) for row in conn.execute(query.where(tasks.c.ready).distinct())}


def ready_for_hosts(conn: Connection, wishes: Iterable[Wish], most: int) -> list[tuple[Task, Wish]]:
    """Ready tasks that have one of `wishes` and may go to a host: highest priority first, then oldest. Locked;
    those that another transaction holds are passed over."""
    wanted = [sa.and_(tasks.c.capset_id == set_, briefs.c.cli.is_not_distinct_from(cli)) for set_, cli in wishes]
    query = (
        sa.select(tasks, briefs.c.cli)
        .join(briefs)
        .where(tasks.c.ready, tasks.c.mode != Mode.HTTP_PULL, sa.or_(*wanted))
        .order_by(tasks.c.priority.desc(), tasks.c.id)
        .limit(most)
        .with_for_update(of=tasks, skip_locked=True)
    )
    return [(task_of(row), (row["capset_id"], row["cli"])) for row in conn.execute(query).mappings()]

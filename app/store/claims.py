"""Who gets a waiting task: the head of the queue, each row locked so that one task goes to one place.

Distinct sets of requirements are interned, so whoever comes asks for the numbers of the sets it can meet and never
looks at a task it cannot do. docs/dequeue.md has the plans and what they cost.
"""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.task import Task
from app.store.tables import capsets, tasks
from app.store.tasks import task_of

PLACING = 0x666C6565  # the advisory lock of whoever hands out host slots
NEAR = 64  # how far into the whole queue to look before each set's own queue is asked
DEEP = 8, 64, 1_000_000  # how far into each set's queue: further only while others hold what is in front


def hold_the_slots(conn: Connection) -> None:
    """One transaction at a time counts free host slots and hands them out."""
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(PLACING)))


Wish = tuple[frozenset[str], str | None]  # what a task needs: capabilities, and a kind of CLI or any


def wishes_for_hosts(conn: Connection) -> dict[int, Wish]:
    """The sets of requirements that a task which hosts may take waits with, by number."""
    waits = sa.exists().where(tasks.c.capset_id == capsets.c.id, tasks.c.ready, sa.text("mode <> 'http_pull'"))
    return {row.id: (frozenset(row.names), row.cli or None) for row in conn.execute(sa.select(capsets).where(waits))}


def for_hosts(conn: Connection, sets: Iterable[int], most: int, off: Iterable[str] = ()) -> list[Task]:
    """Ready tasks of these sets that may go to a host: highest priority first, then oldest. Locked; those that another
    transaction holds are passed over, and so are those of repositories that are switched `off` (`forge id`)."""
    statement, out = _OF_SETS.format(not_for="http_pull"), list(off)
    if out:
        statement = statement.replace("set_.id ORDER", "set_.id AND " + _NOT_OFF + " ORDER")
    return _take(conn, statement, sets=list(sets), deep=most, most=most, **({"off": out} if out else {}))


def sets_met_by(conn: Connection, capabilities: Iterable[str]) -> list[int]:
    """The sets of requirements that these capabilities meet. What CLI a set names is said to hosts alone."""
    met = capsets.c.names.contained_by(list(capabilities))
    return list(conn.execute(sa.select(capsets.c.id).where(met)).scalars())


def for_agents(conn: Connection, sets: list[int], most: int) -> list[Task]:
    """Up to `most` ready tasks of these sets that may go to an agent: highest priority first, then oldest. Locked.

    First the near end of the whole queue, where most find what they can do; then each set's own queue, so that the
    cost is the same however many tasks wait that fit nobody here."""
    if not sets or not most:
        return []
    found = _take(conn, _NEAR, sets=sets, most=most)
    if len(found) == most:
        return found
    held = [task.id for task in found]
    for deep in DEEP:
        more = _take(conn, _OF_SETS.format(not_for="ssh_cli"), sets=sets, deep=deep, most=most - len(held), held=held)
        if more or not _any_waits(conn, sets):
            break
    return found + more


def _take(conn: Connection, statement: str, **given: object) -> list[Task]:
    rows = conn.execute(sa.text(statement), {"held": [], **given}).mappings()
    return [task_of(row) for row in rows]


def _any_waits(conn: Connection, sets: list[int]) -> bool:
    return bool(conn.execute(sa.text(_ANY), {"sets": sets}).scalar())


# The inner query walks an index in the queue's order; the outer one locks row by row and stops when it has enough.
_NEAR = f"""
SELECT t.* FROM (
    SELECT ctid, capset_id FROM tasks WHERE ready AND mode <> 'ssh_cli' ORDER BY priority DESC, id LIMIT {NEAR}
) head JOIN tasks t ON t.ctid = head.ctid
WHERE head.capset_id = ANY(:sets) AND t.ready AND NOT t.id = ANY(:held)
LIMIT :most FOR UPDATE OF t SKIP LOCKED
"""  # noqa: S608 - our own number
_OF_SETS = """
SELECT t.* FROM (
    SELECT head.* FROM unnest(:sets) AS set_(id) CROSS JOIN LATERAL (
        SELECT ctid, priority, id FROM tasks
        WHERE ready AND mode <> '{not_for}' AND capset_id = set_.id ORDER BY priority DESC, id LIMIT :deep
    ) head ORDER BY priority DESC, id
) head JOIN tasks t ON t.ctid = head.ctid
WHERE t.ready AND NOT t.id = ANY(:held)
LIMIT :most FOR UPDATE OF t SKIP LOCKED
"""
_NOT_OFF = "(repository_id IS NULL OR NOT concat(forge, ' ', repository_id) = ANY(:off))"
_ANY = """
SELECT EXISTS (
    SELECT FROM unnest(:sets) AS set_(id) CROSS JOIN LATERAL (
        SELECT FROM tasks WHERE ready AND mode <> 'ssh_cli' AND capset_id = set_.id LIMIT 1
    ) head
)
"""

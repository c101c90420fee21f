"""Finds waiting tasks for agents and hosts, by priority and age; each row is locked, so a task is taken once.

Each distinct set of requirements is one row, so the search reads the sets that a caller meets, and no task that it does
not. docs/dequeue.md has the statements, their plans and their cost.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.task import Task
from app.store.engine import run_together
from app.store.tables import Row, requirement_sets, tasks
from app.store.tasks import task_of

PLACING = 0x666C6565  # the advisory lock of a transaction that assigns host slots
NEAR = 64  # tasks of the whole queue to read before the queue of each set
FAR = 16  # and more of them for each task requested: other transactions hold as many as they request
DEEP = 4, 64, 1_000_000  # tasks of each set to read; more only if other transactions hold the first ones

Needs = tuple[frozenset[str], str | None]  # capabilities, and the CLI; None: any


def lock_host_slots(conn: Connection) -> None:
    """Lock the host slots: one transaction at a time counts and assigns them."""
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(PLACING)))


def needs_for_hosts(conn: Connection) -> dict[int, Needs]:
    """The requirement sets of the tasks that wait for hosts, by number."""
    waits = sa.exists().where(
        tasks.c.requirement_set_id == requirement_sets.c.id, tasks.c.ready, sa.text("mode <> 'http_pull'")
    )
    return {
        row.id: (frozenset(row.names), row.cli or None)
        for row in conn.execute(sa.select(requirement_sets).where(waits))
    }


def for_hosts(conn: Connection, sets: Iterable[int], most: int, off: Iterable[str] = ()) -> list[Task]:
    """Ready tasks of these sets for hosts, locked: the highest priority first, then the oldest.

    Tasks that other transactions hold are skipped, and tasks of repositories that are switched `off` (`forge id`).
    """
    given = {"sets": list(sets), "deep": most, "most": most, "held": [], "off": list(off)}
    return [task_of(row) for row in run_together(conn, (_OF_SETS["http_pull", True], given))[0]]


# --- agents ----------------------------------------------------------------------------------------------


class Search(NamedTuple):
    """The search of an agent for work."""

    agent_id: str
    token_hash: bytes
    words: list[str] | None  # the capabilities to use; None: all that it registered with
    most: int  # tasks
    key: str | None  # an answer may be kept under it
    at: datetime


class Found(NamedTuple):
    """The result of a search. Without `agent`, its token was not accepted, and the rest is empty."""

    agent: Row | None
    answer: list[dict[str, Any]] | None
    open: int  # tasks that it holds
    assigned: list[int]  # runs that an operator assigned to it and that it has not received
    heads: list[Row]
    some_are_off: bool  # a rule switches repositories off: search again without their tasks


def search(conn: Connection, wanted: Search, off: Sequence[str] = ()) -> Found:
    """Authenticate and lock the agent, and search the head of the whole queue, all in one trip.

    Each statement sees what was committed before it, so the caller alone counts the agent's slots. Skips tasks of
    repositories that are switched `off` (`forge id`).
    """
    given = wanted._asdict() | {"off": list(off)}
    seen, found = run_together(conn, (_SEEN, given), (_NEAR[wanted.most > 1, bool(off)], given))
    if not seen:
        return Found(None, None, 0, [], [], False)
    told, heads = found[0], [row for row in found if row["id"] is not None]
    return Found(seen[0], told["answer"], told["open"], told["assigned"] or [], heads, told["some_are_off"])


def search_deeper(
    conn: Connection, capabilities: list[str], most: int, held: list[int], off: Sequence[str] = ()
) -> list[Row]:
    """Up to `most` more tasks, locked, from the queues of all sets that these capabilities meet.

    Skips the tasks `held`, and those of repositories that are `off`. Tasks that do not match add nothing to the cost.
    """
    sets = _sets_met_by(conn, capabilities)
    for deep in DEEP if sets else ():
        given = {"sets": sets, "deep": max(deep, most), "most": most, "held": held, "off": list(off)}
        more, waits = run_together(conn, (_OF_SETS["ssh_cli", bool(off)], given), (_ANY[bool(off)], given))
        if more or not waits[0]["waits"]:
            return more
    return []


def with_texts(conn: Connection, run_ids: list[int]) -> list[Row]:
    """The tasks of these runs, in the form and order of `search`."""
    return run_together(conn, (_OF_RUNS, {"runs": run_ids}))[0]


def _sets_met_by(conn: Connection, capabilities: Iterable[str]) -> list[int]:
    """The requirement sets that these capabilities meet. Only hosts must match the CLI of a set."""
    met = requirement_sets.c.names.contained_by(list(capabilities))
    return list(conn.execute(sa.select(requirement_sets.c.id).where(met)).scalars())


_SEEN = """
UPDATE agents SET seen_at = %(at)s
WHERE agent_id = %(agent_id)s AND gone_at IS NULL AND revoked_at IS NULL
  AND (token_hash = %(token_hash)s OR (former_hash = %(token_hash)s AND former_until > %(at)s))
RETURNING agent_id, agent_type, capabilities, max_concurrency
"""
_TEXTS = """
SELECT p.*, b.source, b.task_type, b.title, b.requirements, b.labels, b.prompt, b.issue, b.timeout_secs, b.validation,
       b.settings, coalesce(to_jsonb(r) - 'forge' - 'id', b.repository) AS repository
FROM {picked} JOIN task_details b ON b.task_pk = p.id
LEFT JOIN repositories r ON r.forge = p.forge AND r.id = p.repository_id
"""
# The inner query reads an index in the queue's order. `OFFSET 0` keeps the check of a set a subquery per task, so the
# outer query locks row by row and stops when it has enough. It orders again, which costs nothing as long as the plan
# keeps the order. Without an agent, there are no tasks.
_HEADS = """
WITH asker AS MATERIALIZED (
    SELECT coalesce(CAST(%(words)s AS text[]), a.capabilities) AS can, a.max_concurrency, mine.open, mine.assigned,
        (SELECT body FROM dequeue_answers d WHERE d.agent_id = a.agent_id AND key = %(key)s) AS answer,
        EXISTS (SELECT FROM rules WHERE NOT enabled) AS some_are_off
    FROM agents a CROSS JOIN LATERAL (
        SELECT count(*) AS open, array_agg(id ORDER BY id) FILTER (WHERE NOT acknowledged AND EXISTS (
            SELECT FROM tasks WHERE tasks.id = runs.task_pk AND tasks.run = runs.number AND state = 'assigned'
        )) AS assigned
        FROM runs WHERE runs.agent_id = a.agent_id AND ended_at IS NULL
    ) mine
    WHERE a.agent_id = %(agent_id)s AND a.gone_at IS NULL AND a.revoked_at IS NULL
      AND (a.token_hash = %(token_hash)s OR (a.former_hash = %(token_hash)s AND a.former_until > %(at)s))
), picked AS MATERIALIZED (
    SELECT t.*, fits.names AS required FROM (
        SELECT ctid AS place, requirement_set_id, priority, id FROM tasks
        WHERE ready AND mode <> 'ssh_cli' {more}ORDER BY priority DESC, id LIMIT {near}
    ) head CROSS JOIN LATERAL (
        SELECT names FROM requirement_sets
        WHERE id = head.requirement_set_id AND names <@ (SELECT can FROM asker) OFFSET 0
    ) fits
    JOIN tasks t ON t.ctid = head.place
    WHERE t.ready ORDER BY head.priority DESC, head.id
    LIMIT coalesce((
        SELECT greatest(0, least(%(most)s, max_concurrency - open)) FROM asker WHERE answer IS NULL AND assigned IS NULL
    ), 0)
    FOR UPDATE OF t SKIP LOCKED
)
SELECT asker.open, asker.assigned, asker.answer, asker.some_are_off, found.*
FROM asker LEFT JOIN ({texts}) found ON true
ORDER BY found.priority DESC, found.id
"""
_PICKED = _TEXTS.format(picked="picked p")
_NOT_OFF = "AND (repository_id IS NULL OR NOT concat(forge, ' ', repository_id) = ANY(CAST(%(off)s AS text[]))) "
_MORE = {False: "", True: _NOT_OFF}
_NEAR = {
    (several, off): _HEADS.format(near=f"{NEAR} + {FAR} * %(most)s" if several else NEAR, more=more, texts=_PICKED)
    for several in (False, True)
    for off, more in _MORE.items()
}
# `BETWEEN` a set and itself: with `=`, every index has the right order within one set, and the planner may read the
# whole queue, or all tasks, for one at its end. Only the sets' own index has this order.
_FROM_SETS = """
WITH picked AS MATERIALIZED (
    SELECT t.*, c.names AS required FROM requirement_sets c CROSS JOIN LATERAL (
        SELECT ctid AS place, priority, id FROM tasks
        WHERE ready AND mode <> '{not_for}' AND requirement_set_id BETWEEN c.id AND c.id {more}
        ORDER BY requirement_set_id, priority DESC, id LIMIT %(deep)s
    ) head
    JOIN tasks t ON t.ctid = head.place
    WHERE c.id = ANY(CAST(%(sets)s AS int[])) AND t.ready AND NOT t.id = ANY(CAST(%(held)s AS bigint[]))
    ORDER BY head.priority DESC, head.id
    LIMIT %(most)s FOR UPDATE OF t SKIP LOCKED
)
"""
_OF_SETS = {
    (mode, off): f"{_FROM_SETS.format(not_for=mode, more=more)}{_PICKED} ORDER BY p.priority DESC, p.id"
    for mode in ("ssh_cli", "http_pull")
    for off, more in _MORE.items()
}
_RUNS = """(
    SELECT t.*, c.names AS required, runs.id AS of_run, runs.deadline
    FROM tasks t JOIN requirement_sets c ON c.id = t.requirement_set_id JOIN runs ON runs.task_pk = t.id
    WHERE runs.id = ANY(CAST(%(runs)s AS bigint[]))
) p"""
_OF_RUNS = f"{_TEXTS.format(picked=_RUNS)} ORDER BY p.of_run"
_WAITS = """
SELECT EXISTS (
    SELECT FROM unnest(CAST(%(sets)s AS int[])) AS set_(id) CROSS JOIN LATERAL (
        SELECT FROM tasks WHERE ready AND mode <> 'ssh_cli' AND requirement_set_id BETWEEN set_.id AND set_.id {more}
        ORDER BY requirement_set_id, priority DESC, id LIMIT 1
    ) head
) AS waits
"""
_ANY = {off: _WAITS.format(more=more) for off, more in _MORE.items()}

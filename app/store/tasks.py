"""Writes tasks: the only place that changes a task's row.

The event and the outbox entries of a change are written in the same transaction.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.errors import Kind, Refused
from app.domain.event import Event
from app.domain.lifecycle import FIRST_OUTBOX, Decision, Fact, FactKind, OutboxKind, decide, new_task
from app.domain.run import run_name
from app.domain.task import LIVE, Mode, Priority, State, Task
from app.store import engine
from app.store.engine import as_jsonb, run_together
from app.store.tables import Row, events, outbox, requirement_sets, runs, tasks

MOST_SWAPS = 20  # tries of a compare-and-swap; then the caller must try again
NUMBERED = "api#{n}"
BY_KEY = "SELECT * FROM tasks WHERE id = %(id)s"
BY_ITS_ID = "SELECT * FROM tasks WHERE task_id = %(id)s"
NONE_SUCH = "There is no task {!r}; `fleet task list` shows those there are."
COLUMNS = tuple(field.name for field in fields(Task))


def record(conn: Connection, id_: int, fact: Fact, at: datetime, believed: Task | None = None) -> Task:
    """Apply `fact` to a task at the moment `at`: swap the row, write the event and the outbox entries, or nothing.

    Returns the task after it. A fact whose key was recorded before changes nothing, nor does one of a quiet row of the
    table. A caller that has just read the task passes it as `believed`. Raises Refused: `unknown`, `stale` for a report
    of an older run, `invalid` when no row of the table applies.
    """
    for _ in range(MOST_SWAPS):
        task, believed = believed or load(conn, id_), None
        if fact.key and _was_recorded(conn, id_, fact.key):
            return task
        decision = decide(task, fact, at)
        if decision.transition.quiet:
            return task
        if _write(conn, [_Step(task, fact, decision)], at):
            return decision.task
    raise Refused(Kind.UNAVAILABLE, f"{task.task_id} is being changed by others; try again.")


def record_locked(conn: Connection, moves: Sequence[tuple[Task, Fact]], at: datetime) -> list[Task]:
    """Apply facts to tasks whose rows this transaction has locked, in one statement; returns the tasks after it."""
    steps = [_Step(task, fact, decide(task, fact, at)) for task, fact in moves]
    if len(_write(conn, steps, at)) != len(steps):
        raise Refused(Kind.UNAVAILABLE, "A task was changed by others while it was locked; try again.")
    return [step.decision.task for step in steps]


def create(conn: Connection, asked: dict[str, Any], at: datetime, key: str | None = None) -> Task:
    """Create a task from the detail of a REQUESTED fact, which has the names of Task's fields.

    In a task_id of NUMBERED, and in its branch, `{n}` becomes the task's key. If there is a task with this task_id or
    of this issue already, it is returned unchanged.
    """
    id_ = conn.execute(sa.select(sa.func.nextval(sa.func.pg_get_serial_sequence("tasks", "id")))).scalar_one()
    if asked["task_id"] == NUMBERED:
        asked = asked | {name: asked[name] and asked[name].replace("{n}", str(id_)) for name in ("task_id", "branch")}
    task = new_task(id_, asked, at)
    made = conn.execute(insert(tasks).values(**row_of(task)).on_conflict_do_nothing().returning(tasks.c.id)).first()
    if made is None:  # the issue may have got a task meanwhile, with another task_id
        of_it = find_by_issue(conn, task.forge, task.repository_id or 0, task.issue_number or 0) if task.forge else None
        return of_it or find(conn, task.task_id)
    line = _event(task, None, Fact(FactKind.REQUESTED, asked, key=key), at)
    conn.execute(sa.insert(events).values(**line))
    if task.issue_number is not None:
        conn.execute(sa.insert(outbox), [_outbox_entry(task, kind, at) for kind in FIRST_OUTBOX])
    _announce(conn, task, line)
    return task


def load(conn: Connection, id_: int) -> Task:
    """The task with the key `id_`. Raises Refused(unknown)."""
    return require(run_together(conn, (BY_KEY, {"id": id_}))[0], f"There is no task {id_}.")


def find(conn: Connection, task_id: str) -> Task:
    """The task with this task_id, such as acme/widgets#12. Raises Refused(unknown)."""
    return require(run_together(conn, (BY_ITS_ID, {"id": task_id}))[0], NONE_SUCH.format(task_id))


def require(rows: Sequence[Row], or_else: str) -> Task:
    """The task of the only row. Raises Refused(unknown) with the sentence `or_else` when there is none."""
    if not rows:
        raise Refused(Kind.UNKNOWN, or_else)
    return task_of(rows[0])


def exists(conn: Connection, task_id: str) -> bool:
    """Whether there is a task with this task_id."""
    return bool(conn.execute(sa.select(sa.exists().where(tasks.c.task_id == task_id))).scalar())


def find_by_issue(conn: Connection, forge: str, repository_id: int, number: int) -> Task | None:
    """The task of an issue."""
    where = (tasks.c.forge == forge, tasks.c.repository_id == repository_id, tasks.c.issue_number == number)
    row = conn.execute(sa.select(tasks).where(*where)).mappings().first()
    return task_of(row) if row else None


def find_by_pull(conn: Connection, forge: str, repository_id: int, number: int, branch: str = "") -> Task | None:
    """The task whose pull request has this number, or whose branch is its head."""
    where = (tasks.c.forge == forge, tasks.c.repository_id == repository_id)
    either = sa.or_(tasks.c.pr_number == number, tasks.c.branch == branch)
    row = conn.execute(sa.select(tasks).where(*where, either).order_by(tasks.c.id.desc()).limit(1)).mappings().first()
    return task_of(row) if row else None


def find_by_branch(
    conn: Connection, forge: str, repository_id: int, branch: str | None, head: str | None
) -> Task | None:
    """The newest task with this branch; without a branch, the one whose pull request has this commit as its head."""
    if branch is None and head is None:
        return None
    where = (tasks.c.forge == forge, tasks.c.repository_id == repository_id)
    either = tasks.c.branch == branch if branch else tasks.c.head == head
    row = conn.execute(sa.select(tasks).where(*where, either).order_by(tasks.c.id.desc()).limit(1)).mappings().first()
    return task_of(row) if row else None


def all_tasks(conn: Connection) -> list[Task]:
    return [task_of(row) for row in conn.execute(sa.select(tasks).order_by(tasks.c.id)).mappings()]


def due(conn: Connection, at: datetime, most: int = 200) -> list[Task]:
    """Tasks whose `due_at` has come. Always in the same order, so that two processes cannot deadlock."""
    query = sa.select(tasks).where(tasks.c.due_at <= at).order_by(tasks.c.due_at, tasks.c.id).limit(most)
    return [task_of(row) for row in conn.execute(query).mappings()]


def unfinished(conn: Connection, forge: str, repository_id: int, most: int = 1000) -> list[Task]:
    """The tasks of a repository that the forge may still change: live ones first, then those that ended without a merge
    in the last 7 days; in both groups the newest change first."""
    recent = tasks.c.moved_at > sa.func.now() - sa.text("interval '7 days'")
    open_ = sa.or_(tasks.c.state.in_(LIVE), sa.and_(tasks.c.state != State.COMPLETED, recent))
    where = (tasks.c.forge == forge, tasks.c.repository_id == repository_id, open_)
    query = sa.select(tasks).where(*where).order_by(tasks.c.state.not_in(LIVE), tasks.c.moved_at.desc(), tasks.c.id)
    return [task_of(row) for row in conn.execute(query.limit(most)).mappings()]


def busy_repositories(conn: Connection) -> set[tuple[str, int]]:
    """The repositories with live tasks, as (forge, repository id)."""
    live = (tasks.c.state.in_(LIVE), tasks.c.repository_id.is_not(None))
    rows = conn.execute(sa.select(tasks.c.forge, tasks.c.repository_id).where(*live).distinct())
    return {(row.forge, row.repository_id) for row in rows}


def requirement_set(conn: Connection, names: tuple[str, ...], cli: str | None = None) -> int:
    """The id of a set of requirements: capabilities, and the kind of CLI that a host must use, if any."""
    known = sa.select(requirement_sets.c.id).where(
        requirement_sets.c.names == list(names), requirement_sets.c.cli == (cli or "")
    )
    found = conn.execute(known).scalar()
    if found is None:
        new = insert(requirement_sets).values(names=list(names), cli=cli or "")
        found = conn.execute(new.on_conflict_do_nothing().returning(requirement_sets.c.id)).scalar()
    return int(found) if found is not None else int(conn.execute(known).scalar_one())


def task_of(row: Row) -> Task:
    """A row of the table as a Task."""
    given = {name: row[name] for name in COLUMNS}
    return Task(
        **given | {"state": State(row["state"]), "mode": Mode(row["mode"]), "priority": Priority(row["priority"])}
    )


def row_of(task: Task) -> dict[str, Any]:
    return dict(zip(COLUMNS, _values(task), strict=True))


_values = attrgetter(*COLUMNS)


def replayed(events_: Sequence[Event]) -> Task:
    """The task that its events, oldest first, amount to."""
    first, *rest = events_
    task = new_task(first.task_pk, first.detail, first.at)
    for event in rest:
        task = decide(task, event.fact, event.at).task
    return replace(task, version=len(events_))


def _was_recorded(conn: Connection, id_: int, key: str) -> bool:
    return bool(conn.execute(sa.select(sa.exists().where(events.c.task_pk == id_, events.c.key == key))).scalar())


class _Step(NamedTuple):
    """A task, a fact, and what the table of transitions makes of them."""

    before: Task
    fact: Fact
    decision: Decision


def _write(conn: Connection, steps: Sequence[_Step], at: datetime) -> list[int]:
    """Swap the rows; write the events, the new runs and the outbox entries, all in one statement.

    Returns the keys of the tasks that were still as believed. Nothing is written for the others.
    """
    events_ = [_event(step.decision.task, step.before.state, step.fact, at) for step in steps]
    given = {
        "rows": [row_of(step.decision.task) for step in steps],
        "events_": events_,
        "runs_": [_new_run(conn, step, at) for step in steps if step.decision.task.run > step.before.run],
        "outbox_": [_outbox_entry(step.decision.task, kind, at) for step in steps for kind in step.decision.outbox],
    }
    rows = run_together(conn, (_WRITE % len(steps), {name: as_jsonb(rows) for name, rows in given.items()}))[0]
    moved = [row["id"] for row in rows]
    for step, line in zip(steps, events_, strict=True):
        if step.before.id in moved:
            _announce(conn, step.decision.task, line)
    return moved


# A row count that the planner can read keeps it from scanning all tasks for a few.
_WRITE = f"""
WITH moved AS (
    UPDATE tasks t SET {", ".join(f"{name} = n.{name}" for name in COLUMNS if name != "id")}
    FROM (SELECT * FROM jsonb_populate_recordset(NULL::tasks, CAST(%%(rows)s AS jsonb)) LIMIT %d) n
    WHERE t.id = n.id AND t.version = n.version - 1
    RETURNING t.id
), new_events AS (
    INSERT INTO events
    SELECT e.*
    FROM jsonb_populate_recordset(NULL::events, CAST(%%(events_)s AS jsonb)) e JOIN moved m ON m.id = e.task_pk
), new_runs AS (
    INSERT INTO runs
        (task_pk, number, name, host_id, agent_id, agent_type, assigned_at, deadline, session, acknowledged)
    SELECT task_pk, number, name, host_id, agent_id, agent_type, assigned_at, deadline, session, acknowledged
    FROM jsonb_populate_recordset(NULL::runs, CAST(%%(runs_)s AS jsonb)) r JOIN moved m ON m.id = r.task_pk
), new_outbox AS (
    INSERT INTO outbox (task_pk, seq, kind, run, due_at)
    SELECT task_pk, seq, kind, run, due_at
    FROM jsonb_populate_recordset(NULL::outbox, CAST(%%(outbox_)s AS jsonb)) d JOIN moved m ON m.id = d.task_pk
)
SELECT id FROM moved
"""  # noqa: S608 - the names of our own columns


def _event(task: Task, source: State | None, fact: Fact, at: datetime) -> dict[str, Any]:
    return {
        "task_pk": task.id, "seq": task.version, "kind": fact.kind, "from_state": source, "to_state": task.state,
        "run": fact.run, "key": fact.key, "detail": dict(fact.detail), "at": at,
    }  # fmt: skip


def _announce(conn: Connection, task: Task, line: dict[str, Any]) -> None:
    """Announce the event after its commit. `for_agents`: a waiting agent may take the task now."""
    for_agents = task.ready and task.mode is not Mode.SSH_CLI
    engine.announce_later(conn, line | {"task_id": task.task_id, "number": task.run, "for_agents": for_agents})


def _outbox_entry(task: Task, kind: OutboxKind, at: datetime) -> dict[str, Any]:
    return {"task_pk": task.id, "seq": task.version, "kind": kind, "run": task.run, "due_at": at}


def _new_run(conn: Connection, step: _Step, at: datetime) -> dict[str, Any]:
    """The row of the run that a fact begins. `until` in the fact is the moment by which it must be confirmed.
    `acknowledged` is false until its agent has received the run. A next round uses the same kind of CLI as before."""
    task, told = step.decision.task, step.fact.detail
    return {
        "task_pk": task.id,
        "number": task.run,
        "name": run_name(task.id, task.task_id, task.run),
        "host_id": task.host_id,
        "agent_id": task.agent_id,
        "agent_type": told.get("agent_type") or _agent_type_before(conn, task),
        "assigned_at": at,
        "deadline": told.get("until"),
        "session": task.session,
        "acknowledged": told.get("acknowledged", True),
    }


def _agent_type_before(conn: Connection, task: Task) -> str | None:
    before = sa.select(runs.c.agent_type).where(runs.c.task_pk == task.id).order_by(runs.c.number.desc()).limit(1)
    return conn.execute(before).scalar()

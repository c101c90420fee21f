"""Runs as rows: leases, progress, ends, and which runs their hosts still keep. A run's end is recorded once."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import JSONB

from app.domain.lifecycle import FINAL_STATES
from app.domain.quota import today
from app.domain.run import Run
from app.domain.task import State, Task
from app.store import tasks as tasks_
from app.store.engine import UNHURRIED, as_jsonb, fetch_one, run_together
from app.store.tables import Row, host_polls, runs, tasks

_ONE = "SELECT * FROM runs WHERE task_pk = %(task)s AND number = %(number)s"
_OF_TASK_ID = """
SELECT runs.* FROM runs JOIN tasks ON tasks.id = runs.task_pk WHERE tasks.task_id = %(id)s ORDER BY number
"""
RESULT_AWAITED = timedelta(days=7)  # how long polls still ask for the result of an expired run
POLLED_WITHIN = timedelta(seconds=60)  # a run may only expire on a host that was polled within this time


_COLUMNS = tuple(field.name for field in fields(Run))


def run_of(row: Row) -> Run:
    """A row of the table as a Run."""
    return Run(**{name: row[name] for name in _COLUMNS})


def get(conn: Connection, task_pk: int, number: int) -> Run | None:
    row = fetch_one(conn, _ONE, task=task_pk, number=number)
    return run_of(row) if row else None


def with_task(conn: Connection, task_pk: int, number: int) -> tuple[Run | None, Task]:
    """A run and its task, in one round trip. Raises Refused(unknown)."""
    given = {"task": task_pk, "number": number}
    found, of = run_together(conn, (_ONE, given), (tasks_.BY_KEY, {"id": task_pk}))
    return next(map(run_of, found), None), tasks_.require(of, f"There is no task {task_pk}.")


def of_task_id(conn: Connection, task_id: str) -> tuple[list[Run], Task]:
    """The runs of the task with this task_id, and the task, in one round trip. Raises Refused(unknown)."""
    found, of = run_together(conn, (_OF_TASK_ID, {"id": task_id}), (tasks_.BY_ITS_ID, {"id": task_id}))
    return [run_of(row) for row in found], tasks_.require(of, tasks_.NONE_SUCH.format(task_id))


def of_task(conn: Connection, task_pk: int) -> list[Run]:
    rows = run_together(conn, ("SELECT * FROM runs WHERE task_pk = %(task)s ORDER BY number", {"task": task_pk}))
    return [run_of(row) for row in rows[0]]


def open_on_host(conn: Connection, host_id: str) -> list[Run]:
    """The runs on a host that have not ended, as far as we know."""
    query = sa.select(runs).where(runs.c.host_id == host_id, runs.c.ended_at.is_(None)).order_by(runs.c.id)
    return [run_of(row) for row in conn.execute(query).mappings()]


def to_poll(conn: Connection, host_ids: Sequence[str], at: datetime) -> dict[str, list[Run]]:
    """By host: the runs there that have not ended, and the expired ones whose result is still missing.

    There may be thousands a second, so only the columns are read that a poll needs: `end`, `result`, `outcome`,
    `progress` and the rest have their defaults, whatever the table holds.
    """
    found: dict[str, list[Run]] = {host_id: [] for host_id in host_ids}
    given = {"hosts": list(host_ids), "since": at - RESULT_AWAITED}
    for row in run_together(conn, (_TO_POLL, given))[0] if host_ids else ():
        found[row["host_id"]].append(Run(**row))
    return found


_POLL_COLUMNS = """
id, task_pk, number, name, host_id, agent_type, session, assigned_at, started_at, ended_at, deadline,
stdout_size, stderr_size"""
_TO_POLL = f"""
SELECT {_POLL_COLUMNS} FROM runs WHERE host_id = ANY(CAST(%(hosts)s AS text[])) AND ended_at IS NULL
UNION ALL
SELECT {_POLL_COLUMNS} FROM runs
WHERE host_id = ANY(CAST(%(hosts)s AS text[])) AND "end" = 'expired' AND result IS NULL AND released_at IS NULL
  AND ended_at >= %(since)s
ORDER BY id
"""  # noqa: S608 - names of our own columns


def awaiting_result(at: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition for expired runs on hosts whose result and last log are still wanted when the host is back."""
    nothing = (runs.c.result.is_(None), runs.c.released_at.is_(None), runs.c.host_id.is_not(None))
    return (runs.c.end == "expired", *nothing, runs.c.ended_at >= at - RESULT_AWAITED)


def record_late_result(conn: Connection, run_id: int, result: Any) -> None:
    """Store the result of a run that had expired. Its whole log must be stored before."""
    given_up = (runs.c.id == run_id, runs.c.end == "expired", runs.c.result.is_(None))
    conn.execute(sa.update(runs).where(*given_up).values(result=result))


def open_of_agent(conn: Connection, agent_id: str) -> list[Run]:
    """The runs of an agent that have not ended, as far as we know."""
    query = sa.select(runs).where(runs.c.agent_id == agent_id, runs.c.ended_at.is_(None)).order_by(runs.c.id)
    return [run_of(row) for row in conn.execute(query).mappings()]


def acknowledge(conn: Connection, run_id: int) -> None:
    """The agent has received the run."""
    _update(conn, run_id, acknowledged=True)


def record_progress(
    conn: Connection, run_id: int, message: str | None, progress: Any, at: datetime, unhurried: bool = False
) -> None:
    """Store the newest progress. The usage that was reported on earlier days is kept in `usage_before`.

    With `unhurried` the commit does not wait for the disk: a lost report is sent again.
    """
    given = {"run": run_id, "message": message, "progress": as_jsonb(progress), "day": today(at).date()}
    run_together(conn, *([UNHURRIED] if unhurried else []), (_PROGRESS, given))


_PROGRESS = """
UPDATE runs SET message = %(message)s, progress = CAST(%(progress)s AS jsonb), usage_day = %(day)s,
    usage_before = CASE WHEN usage_day = %(day)s THEN usage_before ELSE progress -> 'usage' END
WHERE id = %(run)s AND ended_at IS NULL
"""


def count_by_slot(conn: Connection) -> dict[tuple[str, str], int]:
    """How many open runs each (host, kind of CLI) has."""
    query = (
        sa.select(runs.c.host_id, runs.c.agent_type, sa.func.count())
        .where(runs.c.ended_at.is_(None), runs.c.host_id.is_not(None))
        .group_by(runs.c.host_id, runs.c.agent_type)
    )
    return {(host, kind): count for host, kind, count in conn.execute(query)}


def hosts_with_runs() -> sa.Select[tuple[str]]:
    """A query for the hosts with open runs."""
    return sa.select(runs.c.host_id).where(runs.c.ended_at.is_(None), runs.c.host_id.is_not(None))


def mark_started(conn: Connection, run_id: int, at: datetime, deadline: datetime) -> None:
    _update(conn, run_id, started_at=at, seen_at=at, deadline=deadline)


def renew_lease(conn: Connection, run_id: int, at: datetime, deadline: datetime) -> None:
    """The run is alive: its lease lasts until `deadline`."""
    renew_leases(conn, [run_id], at, deadline)


def renew_leases(
    conn: Connection, run_ids: Iterable[int], at: datetime, deadline: datetime, unless_since: datetime | None = None
) -> None:
    """These runs are alive. A run that was seen after `unless_since` is not written again."""
    given = {"ids": list(run_ids), "at": at, "deadline": deadline, "since": unless_since}
    run_together(conn, (_RENEW, given))


_RENEW = """
UPDATE runs SET seen_at = %(at)s, deadline = %(deadline)s
WHERE id = ANY(CAST(%(ids)s AS bigint[])) AND ended_at IS NULL
  AND (seen_at > CAST(%(since)s AS timestamptz) AND seen_at <= %(at)s) IS NOT TRUE
RETURNING id
"""


def extend_lease(conn: Connection, run_id: int, deadline: datetime) -> bool:
    """Before a start is requested: the run does not expire before `deadline`. False when it has ended."""
    later = sa.func.greatest(runs.c.deadline, deadline)
    return _update(conn, run_id, deadline=later)


def extend_leases_on_host(conn: Connection, host_id: str, deadline: datetime) -> None:
    """The host is in quarantine: its started runs do not expire before `deadline`."""
    begun = (runs.c.host_id == host_id, runs.c.ended_at.is_(None), runs.c.started_at.is_not(None))
    conn.execute(sa.update(runs).where(*begun).values(deadline=sa.func.greatest(runs.c.deadline, deadline)))


def restore_lease(conn: Connection, run_id: int, deadline: datetime) -> None:
    """The start was certainly not performed: the former deadline applies again."""
    not_begun = (runs.c.id == run_id, runs.c.ended_at.is_(None), runs.c.started_at.is_(None))
    conn.execute(sa.update(runs).where(*not_begun).values(deadline=deadline))


def end(
    conn: Connection, run_id: int, at: datetime, end: str,
    result: Any = None, outcome: Any = None, session: str | None = None,
) -> bool:  # fmt: skip
    """Record the end of a run with its result and outcome; False when it had ended before."""
    given = {"id": run_id, "at": at, "end": end, "session": session, "day": today(at).date()}
    told = {"result": result and as_jsonb(result), "outcome": outcome and as_jsonb(outcome)}
    return bool(run_together(conn, (_END, given | told))[0])


_END = """
UPDATE runs SET ended_at = %(at)s, "end" = %(end)s, deadline = NULL,
    result = coalesce(CAST(%(result)s AS jsonb), result), outcome = coalesce(CAST(%(outcome)s AS jsonb), outcome),
    session = coalesce(%(session)s, session),
    usage_day = CASE WHEN CAST(%(outcome)s AS jsonb) IS NULL THEN usage_day ELSE %(day)s END,
    usage_before = CASE WHEN CAST(%(outcome)s AS jsonb) IS NULL OR usage_day = %(day)s THEN usage_before
        ELSE progress -> 'usage' END
WHERE id = %(id)s AND ended_at IS NULL RETURNING id
"""


def record_checks(conn: Connection, run_id: int, checks: list[Any]) -> None:
    """Record how the checks of an ended run went. Checks that were reported before stand."""
    untold = (runs.c.id == run_id, sa.func.jsonb_array_length(runs.c.result["checks"]) == 0)
    told = runs.c.result.op("||")(sa.cast({"checks": checks, "validation": checks}, JSONB))
    conn.execute(sa.update(runs).where(*untold).values(result=told))


def set_session(conn: Connection, run_id: int, session: str | None) -> None:
    _update(conn, run_id, session=session)


def expire(conn: Connection, run_id: int, at: datetime) -> bool:
    """End a run whose lease has expired; False when it was renewed or ended meanwhile."""
    believed = (runs.c.id == run_id, runs.c.ended_at.is_(None), runs.c.deadline <= at)
    values = {"ended_at": at, "end": "expired", "deadline": None}
    return conn.execute(sa.update(runs).where(*believed).values(**values)).rowcount == 1


def with_expired_lease(conn: Connection, at: datetime, on_hosts_only: bool, most: int = 200) -> list[Run]:
    """Open runs whose lease has expired. A started run on a host counts only if the host was polled recently."""
    polled = sa.exists().where(host_polls.c.host_id == runs.c.host_id, host_polls.c.tried_at >= at - POLLED_WITHIN)
    over = [runs.c.deadline <= at, runs.c.ended_at.is_(None)]
    over.append(sa.or_(runs.c.host_id.is_(None), runs.c.started_at.is_(None), polled))
    if on_hosts_only:
        over.append(runs.c.host_id.is_not(None))
    query = sa.select(runs).where(*over).order_by(runs.c.deadline).limit(most)
    return [run_of(row) for row in conn.execute(query).mappings()]


def extend_leases(conn: Connection, gap: timedelta, on_hosts: bool) -> int:
    """The control plane was down for `gap`: extend all leases on hosts, or of agents, by it; returns how many."""
    theirs = runs.c.host_id.is_not(None) if on_hosts else runs.c.agent_id.is_not(None)
    open_ = (theirs, runs.c.ended_at.is_(None), runs.c.deadline.is_not(None))
    return conn.execute(sa.update(runs).where(*open_).values(deadline=runs.c.deadline + gap)).rowcount


class KeptRun(NamedTuple):
    """A run that its host still keeps, with the state of its task and the moment at which the task came to it."""

    run: Run
    state: State
    since: datetime


def kept_on_hosts(conn: Connection, most: int = 500) -> list[KeptRun]:
    """Ended runs of ended tasks whose folder or worktree the host still keeps, oldest first."""
    over = (runs.c.host_id.is_not(None), runs.c.ended_at.is_not(None), runs.c.released_at.is_(None))
    of_ended = sa.and_(tasks.c.id == runs.c.task_pk, tasks.c.state.in_(FINAL_STATES))
    query = sa.select(runs, tasks.c.state, tasks.c.moved_at).join(tasks, of_ended).where(*over)
    rows = conn.execute(query.order_by(tasks.c.moved_at, runs.c.id).limit(most)).mappings()
    return [KeptRun(run_of(row), State(row["state"]), row["moved_at"]) for row in rows]


def mark_released(conn: Connection, run_id: int, at: datetime, saved: str | None) -> None:
    """The host has deleted the run. Work that was nowhere else was pushed to the ref `saved`."""
    conn.execute(sa.update(runs).where(runs.c.id == run_id).values(released_at=at, saved=saved))


def _update(conn: Connection, run_id: int, **values: Any) -> bool:
    still_open = (runs.c.id == run_id, runs.c.ended_at.is_(None))
    return conn.execute(sa.update(runs).where(*still_open).values(**values)).rowcount == 1

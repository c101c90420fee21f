"""Stores closed credentials, sums the usage of runs, and stores what operators added to a task's budget."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.failures import REFUSALS
from app.domain.quota import FIRST_PAUSE, REFUSED_PAUSE, UNITS, Amount, opens_at, today
from app.domain.run import MOST, Run
from app.domain.task import State, Task
from app.store.engine import run_together
from app.store.tables import Row, allowances, credentials, rules, runs, tasks


def close_credential(
    conn: Connection, name: str, resets_at: str | None, why: str, at: datetime, refused: bool = False
) -> datetime:
    """Close a credential whose limit a run met, or whose login was `refused`. Returns the moment at which it opens.

    If two runs meet the limit, the later reset counts.
    """
    conn.execute(insert(credentials).values(name=name, reported_at=at).on_conflict_do_nothing())
    row = conn.execute(sa.select(credentials).where(credentials.c.name == name).with_for_update()).one()
    if resets_at is None and row.closed_until and row.closed_until > at:
        return cast(datetime, row.closed_until)  # runs that were under way say nothing new
    pause = REFUSED_PAUSE if refused else FIRST_PAUSE
    until = max(opens_at(resets_at, row.tries, at, pause), row.closed_until or at)
    values = {"closed_until": until, "why": why[:500], "tries": row.tries + 1, "reported_at": at, "refused": refused}
    conn.execute(sa.update(credentials).where(credentials.c.name == name).values(**values))
    return until


def reopen_credentials(conn: Connection, names: Sequence[str], since: datetime | None = None) -> list[str]:
    """Open credentials again: a run that began at `since` succeeded with them, or an operator says so.

    Returns the names of those that were closed. A run that began before the reset proves nothing: they stay closed.
    """
    return [row["name"] for row in run_together(conn, (_OPEN, {"names": list(names), "since": since}))[0]]


_OPEN = """
UPDATE credentials SET closed_until = NULL, why = NULL, tries = 0, refused = false
WHERE name = ANY(CAST(%(names)s AS text[])) AND closed_until IS NOT NULL
  AND (CAST(%(since)s AS timestamptz) IS NULL OR closed_until <= %(since)s)
RETURNING name
"""


def record_warning(conn: Connection, name: str, warning: str, at: datetime) -> None:
    """Store a CLI's warning that a limit is near."""
    told = insert(credentials).values(name=name, warning=warning[:500], reported_at=at)
    conn.execute(
        told.on_conflict_do_update(index_elements=["name"], set_={"warning": warning[:500], "reported_at": at})
    )


def all_credentials(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(credentials).order_by(credentials.c.name)).mappings())


def parked_for(conn: Connection, clis: Sequence[str], host_id: str | None = None) -> list[int]:
    """The keys of the tasks that wait for a credential.

    Their newest run used one of these CLIs (on that host), and met a limit or was refused.
    """
    wait = (tasks.c.state == State.PARKED, tasks.c.reason.in_(["limit", *REFUSALS]), runs.c.agent_type.in_(clis))
    newest = sa.and_(runs.c.task_pk == tasks.c.id, runs.c.number == tasks.c.run)
    query = sa.select(tasks.c.id).join(runs, newest).where(*wait).order_by(tasks.c.id)
    return list(conn.execute(query.where(runs.c.host_id == host_id) if host_id else query).scalars())


def any_budget(conn: Connection) -> bool:
    return bool(conn.execute(sa.select(sa.exists().where(rules.c.budget != sa.text("'{}'::jsonb")))).scalar())


def used(conn: Connection, task: Task, run_id: int, at: datetime) -> dict[str, Amount]:
    """The usage so far of the run, its task, its repository, and of the repository today, as CLIs report it.

    Usage that is reported after midnight (UTC) counts for the new day, whenever its run began.
    """
    of_task, of_repository = runs.c.task_pk == task.id, _of_repository(task)
    return {
        "run": _sum(conn, at, runs.c.id == run_id),
        "task": _sum(conn, at, of_task),
        "repository": _sum(conn, at, of_repository),
        "day": _sum_of_today(conn, at, of_repository),
    }


def add_allowance(conn: Connection, task_pk: int, more: Amount) -> Amount:
    """Add to the budget of a task; returns the sum of all additions."""
    given = {unit: getattr(more, unit) for unit in UNITS}
    statement = insert(allowances).values(task_pk=task_pk, **given)
    sums = {unit: allowances.c[unit] + value for unit, value in given.items()}
    conn.execute(statement.on_conflict_do_update(index_elements=["task_pk"], set_=sums))
    return allowance(conn, task_pk)


def allowance(conn: Connection, task_pk: int) -> Amount:
    row = conn.execute(sa.select(allowances).where(allowances.c.task_pk == task_pk)).first()
    return Amount(row.tokens, row.dollars, row.minutes) if row else Amount()


def session_usage(conn: Connection, run: Run) -> dict[str, Any] | None:
    """The usage of the session that a run resumes, before the run, as its CLI counted it."""
    if not run.session:
        return None
    told = runs.c.outcome["session_usage"]
    before = (runs.c.task_pk == run.task_pk, runs.c.number < run.number, runs.c.session == run.session)
    query = sa.select(told).where(*before, sa.func.jsonb_typeof(told) == "object")
    return conn.execute(query.order_by(runs.c.number.desc()).limit(1)).scalar()


def set_stop_reason(conn: Connection, run_id: int, why: dict[str, Any]) -> None:
    """Store why a run is stopped, before it is."""
    still_open = (runs.c.id == run_id, runs.c.ended_at.is_(None))
    conn.execute(sa.update(runs).where(*still_open).values(stop_reason=why))


def _of_repository(task: Task) -> sa.ColumnElement[bool]:
    same = sa.select(tasks.c.id).where(tasks.c.forge == task.forge, tasks.c.repository_id == task.repository_id)
    return runs.c.task_pk.in_(same)


def _sum(conn: Connection, at: datetime, *where: sa.ColumnElement[bool]) -> Amount:
    spans = sa.func.coalesce(runs.c.ended_at, at) - runs.c.started_at
    return _added(conn, _total, spans, *where)


def _sum_of_today(conn: Connection, at: datetime, *where: sa.ColumnElement[bool]) -> Amount:
    """Of each run: the usage reported today minus that reported before, and its minutes since midnight (UTC)."""
    day = today(at)
    usage_day = sa.func.coalesce(runs.c.usage_day, sa.cast(sa.func.timezone("UTC", runs.c.assigned_at), sa.Date))
    end = sa.func.coalesce(runs.c.ended_at, at)

    def counter(name: str) -> sa.ColumnElement[Any]:
        before = sa.func.coalesce(_number(runs.c.usage_before[name]), 0)
        return sa.case((usage_day == day.date(), sa.func.greatest(_total(name) - before, 0)), else_=0)

    return _added(conn, counter, end - sa.func.greatest(runs.c.started_at, day), *where, end >= day)


def _added(
    conn: Connection, counter: Callable[[str], sa.ColumnElement[Any]], spans: Any, *where: sa.ColumnElement[bool]
) -> Amount:
    """`spans` are the durations of the runs; a run that has not started took no time."""
    took = sa.case((runs.c.started_at.is_not(None), sa.func.extract("epoch", spans) / 60))
    sums = (counter("input_tokens") + counter("output_tokens"), counter("cost_usd"), took)
    tokens, dollars, minutes = conn.execute(sa.select(*map(sa.func.sum, sums)).where(*where)).one()
    return Amount(float(tokens or 0), float(dollars or 0), float(minutes or 0))


def _total(name: str) -> sa.ColumnElement[Any]:
    """A counter of a run's outcome, else of its progress: a lost run has used what it reported."""
    told = [_number(column["usage"][name]) for column in (runs.c.outcome, runs.c.progress)]
    return sa.func.coalesce(*told, 0)


def _number(told: Any) -> sa.ColumnElement[Any]:
    """The value as a number; NULL if it is none or out of range."""
    number = sa.case((sa.func.jsonb_typeof(told) == "number", sa.cast(told.astext, sa.Numeric)))
    return sa.case((number.between(0, MOST), sa.cast(number, sa.Float)))

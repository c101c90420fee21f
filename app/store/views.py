"""Reads tasks with their events, runs and outbox entries, in the API's names."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.errors import Kind, Refused
from app.domain.event import Event
from app.domain.task import Priority, State
from app.store.engine import run_together
from app.store.events import event_of
from app.store.tables import Row, receipts, requirement_sets, runs, task_details, tasks

Json = dict[str, Any]

_LATEST_SIGN = (
    sa.select(sa.func.max(runs.c.seen_at)).where(runs.c.task_pk == tasks.c.id).correlate(tasks).scalar_subquery()
)
_TASKS = (
    sa.select(tasks, task_details, requirement_sets.c.names.label("required"), _LATEST_SIGN.label("seen_at"))
    .join(requirement_sets, requirement_sets.c.id == tasks.c.requirement_set_id)
    .join(task_details, task_details.c.task_pk == tasks.c.id)
)


_ONE = """
SELECT t.*, b.*, c.names AS required, (SELECT max(seen_at) FROM runs WHERE task_pk = t.id) AS seen_at
FROM tasks t JOIN requirement_sets c ON c.id = t.requirement_set_id JOIN task_details b ON b.task_pk = t.id
WHERE t.task_id = %(id)s
"""
_ITS = "SELECT x.* FROM tasks t JOIN {table} x ON x.task_pk = t.id WHERE t.task_id = %(id)s{more} ORDER BY x.{order}"
_ITS_RUNS = _ITS.format(table="runs", more="", order="number")
_ITS_OUTBOX = _ITS.format(table="outbox", more=" AND x.done_at IS NULL", order="id")
_ITS_EVENTS = _ITS.format(table="events", more="", order="seq")


def task(conn: Connection, task_id: str, with_events: bool = True) -> Json | None:
    """One task as the contract shows it, with `events` and `runs`; None when there is none."""
    asked = {"id": task_id}
    rows, runs_, entries, *told = run_together(
        conn, (_ONE, asked), (_ITS_RUNS, asked), (_ITS_OUTBOX, asked), *([(_ITS_EVENTS, asked)] if with_events else [])
    )
    if not rows:
        return None
    found = shown(rows[0]) | {
        "runs": [_run_shown(run) for run in runs_],
        "outbox": [_entry_shown(entry) for entry in entries],
    }
    return found | {"events": [event_json(event_of(row)) for row in told[0]]} if with_events else found


def task_list(
    conn: Connection, where: Mapping[str, Any], limit: int = 50, after: str | None = None
) -> tuple[list[Json], int]:
    """Tasks, newest first, that fit `where` (status, agent_id, host, execution_mode, repository), from below the
    task id `after`; and how many fit in all. Raises Refused when there is no task `after`."""
    fits = [_FILTERS[name](value) for name, value in where.items() if value is not None]
    count = (
        sa.select(sa.func.count())
        .select_from(tasks.join(task_details, task_details.c.task_pk == tasks.c.id))
        .where(*fits)
    )
    query = _TASKS.where(*fits).order_by(tasks.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tasks.c.id < _key_of(conn, after))
    return [shown(row) for row in conn.execute(query).mappings()], conn.execute(count).scalar_one()


def _key_of(conn: Connection, task_id: str) -> int:
    found = conn.execute(sa.select(tasks.c.id).where(tasks.c.task_id == task_id)).scalar()
    if found is None:
        raise Refused(Kind.INVALID, f"after: There is no task {task_id!r}: begin at the first page.")
    return int(found)


def needs(conn: Connection, requirement_set_id: int) -> tuple[list[str], str | None]:
    """The capabilities that an interned set holds, and the kind of CLI that hosts shall use."""
    row = conn.execute(sa.select(requirement_sets).where(requirement_sets.c.id == requirement_set_id)).one()
    return list(row.names), row.cli or None


def run_list(conn: Connection, task_pk: int) -> list[Json]:
    rows = conn.execute(sa.select(runs).where(runs.c.task_pk == task_pk).order_by(runs.c.number)).mappings()
    return [_run_shown(row) for row in rows]


def receipt_of(conn: Connection, task_id: str) -> Json | None:
    """The receipt of a finished task."""
    query = sa.select(receipts.c.body).join(tasks, tasks.c.id == receipts.c.task_pk).where(tasks.c.task_id == task_id)
    return conn.execute(query).scalar()


def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return value.isoformat().replace("+00:00", "Z") if value else None


def shown(row: Row) -> Json:
    """A task as the contract shows it, from its row with its texts."""
    signs = [at for at in (row["moved_at"], row["seen_at"], row["active_at"]) if at]
    return {
        "task_id": row["task_id"],
        "source": row["source"],
        "task_type": row["task_type"],
        "title": row["title"],
        "priority": Priority(row["priority"]).word,
        "status": row["state"],
        "execution_mode": row["mode"],
        "assigned_agent_id": row["agent_id"] if row["state"] != State.CREATED else None,
        "assigned_host": row["host_id"] if row["state"] != State.CREATED else None,
        "run": row["run"],
        **{name: row[name] for name in ("retry_count", "max_retries", "review_count", "labels", "requirements")},
        "required_capabilities": row["required"],
        "prompt": row["prompt"],
        "repository": row["repository"],
        "issue": row["issue"],
        "branch_name": row["branch"],
        **{name: row[name] for name in ("pr_number", "pr_title", "pr_url", "reason")},
        "wants_pull_request": row["wants_pull"],
        "due_at": moment(row["due_at"]),
        **{name: moment(row[name]) for name in ("created_at", "assigned_at", "started_at", "completed_at")},
        "last_activity_at": moment(max(signs)),
    }


def event_json(event: Event) -> Json:
    """An event as the API shows it, and as a receipt's chain of hashes takes it."""
    return {
        "seq": event.seq, "fact": event.kind, "from": event.from_state, "to": event.to_state,
        "run": event.run, "detail": event.detail, "at": moment(event.at),
    }  # fmt: skip


def _entry_shown(row: Row) -> Json:
    return {
        "kind": row["kind"], "tries": row["tries"], "due_at": moment(row["due_at"]),
        "given_up": row["given_up_at"] is not None, "error": row["error"],
    }  # fmt: skip


def _run_shown(row: Row) -> Json:
    result, outcome = row["result"] or {}, row["outcome"] or {}
    return {
        **{
            name: row[name]
            for name in ("number", "name", "host_id", "agent_id", "session", "end", "message", "progress")
        },
        "cli": row["agent_type"],
        "cli_version": result.get("cli_version"),
        **{name: moment(row[name]) for name in ("assigned_at", "started_at", "seen_at", "ended_at", "deadline")},
        "exit_code": result.get("exit_code"),
        "commits": result.get("commits") or [],
        "validation": result.get("validation") or [],
        "checks": result.get("checks") or [],
        "artifacts": result.get("artifacts") or [],
        "why": result.get("reason"),
        "verdict": outcome.get("verdict"),
        **{name: outcome.get(name) for name in ("failure", "cost_source")},
        "denied_actions": outcome.get("denied_actions") or [],
        "hooks": result.get("hooks") or [],
        "warnings": result.get("warnings") or [],
        "summary": outcome.get("final_text"),
        "usage": outcome.get("usage"),
        "log_bytes": row["stdout_size"] + row["stderr_size"],
    }


_FILTERS: dict[str, Callable[[str], sa.ColumnElement[bool]]] = {
    "status": lambda value: tasks.c.state == value,
    "agent_id": lambda value: tasks.c.agent_id == value,
    "host": lambda value: tasks.c.host_id == value,
    "execution_mode": lambda value: tasks.c.mode == value,
    "repository": lambda value: task_details.c.repository["full_name"].astext == value,
}

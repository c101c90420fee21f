"""Stores the texts and settings of tasks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.prompt import Prompt
from app.domain.task_details import AcceptedText, TaskDetails, TaskSettings
from app.store.tables import Row, task_details


def get(conn: Connection, task_pk: int) -> TaskDetails:
    """The details of a task, which every task has."""
    row = conn.execute(sa.select(task_details).where(task_details.c.task_pk == task_pk)).mappings().one()
    return parse_row(row)


def add(conn: Connection, task_pk: int, details: TaskDetails) -> None:
    """Store the details of a new task. If two processes created it at once, the first one's details stay."""
    values = {
        "source": details.source,
        "task_type": details.task_type,
        "labels": list(details.labels),
        "repository": details.repository,
        "validation": list(details.validation),
        "timeout_secs": details.timeout_secs,
        "requested_by": details.requested_by,
        "accepted_entry": details.accepted_entry,
        "settings": details.settings.as_json(),
        **_text_values(details.text),
    }
    conn.execute(insert(task_details).values(task_pk=task_pk, **values).on_conflict_do_nothing())


def set_text(conn: Connection, task_pk: int, text: AcceptedText) -> None:
    """Replace the text that the task works on."""
    _update(conn, task_pk, **_text_values(text))


def set_accepted_entry(conn: Connection, task_pk: int, entry: int | None) -> None:
    """Store the timeline entry that requested the work last; only a later one requests it again."""
    _update(conn, task_pk, accepted_entry=entry)


def set_labels(conn: Connection, task_pk: int, labels: Sequence[str], task_type: str) -> None:
    _update(conn, task_pk, labels=list(labels), task_type=task_type)


def touch(conn: Connection, task_pk: int, at: datetime) -> None:
    """Record activity on a task, such as a push to its branch."""
    _update(conn, task_pk, active_at=sa.func.greatest(task_details.c.active_at, at))


def parse_row(row: Row) -> TaskDetails:
    """The details in a row that has the columns of this table."""
    found = row["prompt"]
    prompt = Prompt(
        goal=found["goal"],
        constraints=tuple(found.get("constraints") or ()),
        validation=tuple(found.get("validation") or ()),
        text=found["text"],
        hidden=tuple(found.get("hidden") or ()),
    )
    return TaskDetails(
        text=AcceptedText(row["title"], row["requirements"], prompt, row.get("issue_sha256"), row["issue"]),
        source=row["source"],
        task_type=row["task_type"],
        labels=tuple(row["labels"]),
        repository=row["repository"],
        validation=tuple(row["validation"]),
        timeout_secs=row["timeout_secs"],
        requested_by=row.get("requested_by"),
        accepted_entry=row.get("accepted_entry"),
        settings=TaskSettings.from_json(row["settings"]),
        active_at=row.get("active_at"),
    )


def _text_values(text: AcceptedText) -> dict[str, Any]:
    return {
        "title": text.title,
        "requirements": text.requirements,
        "prompt": text.prompt.as_json(),
        "prompt_sha256": text.prompt.hash,
        "issue_sha256": text.issue_sha256,
        "issue": text.issue,
    }


def _update(conn: Connection, task_pk: int, **values: Any) -> None:
    conn.execute(sa.update(task_details).where(task_details.c.task_pk == task_pk).values(**values))

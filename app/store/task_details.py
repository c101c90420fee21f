"""The texts of a task: as they were accepted, and when anybody was last active on it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.store.tables import task_details


def change(conn: Connection, task_pk: int, values: Mapping[str, Any]) -> None:
    """Other texts are in force from now on."""
    conn.execute(sa.update(task_details).where(task_details.c.task_pk == task_pk).values(**values))


def active(conn: Connection, task_pk: int, at: datetime) -> None:
    """Somebody did something about the task, such as pushing to its branch."""
    newest = sa.func.greatest(task_details.c.active_at, at)
    conn.execute(sa.update(task_details).where(task_details.c.task_pk == task_pk).values(active_at=newest))

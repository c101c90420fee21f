"""Stores how far lists of a repository were read, by the forge's clock, and when something was first seen, by ours."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import first_seen, forge_cursors


def cursor(conn: Connection, forge: str, repository_id: int, name: str) -> str | None:
    """How far a list of a repository was read; None if it never was."""
    where = (
        forge_cursors.c.forge == forge,
        forge_cursors.c.repository_id == repository_id,
        forge_cursors.c.name == name,
    )
    return conn.execute(sa.select(forge_cursors.c.since).where(*where)).scalar()


def set_cursor(conn: Connection, forge: str, repository_id: int, name: str, value: str) -> None:
    statement = insert(forge_cursors).values(forge=forge, repository_id=repository_id, name=name, since=value)
    key = ["forge", "repository_id", "name"]
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_={"since": value}))


def first_seen_at(conn: Connection, task_pk: int, key: str, at: datetime) -> datetime:
    """When `key` was first seen for a task; `at`, if it is new."""
    conn.execute(insert(first_seen).values(task_pk=task_pk, key=key, at=at).on_conflict_do_nothing())
    known = sa.select(first_seen.c.at).where(first_seen.c.task_pk == task_pk, first_seen.c.key == key)
    found: datetime = conn.execute(known).scalar_one()
    return found


def forget_first_seen(conn: Connection, task_pk: int, key: str) -> None:
    conn.execute(sa.delete(first_seen).where(first_seen.c.task_pk == task_pk, first_seen.c.key == key))

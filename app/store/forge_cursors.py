"""When something was first heard of by our own clock, and up to where a repository was read by the forge's."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import first_seen, forge_cursors


def first(conn: Connection, task_pk: int, key: str, at: datetime) -> datetime:
    """When this was heard of for the first time; that may be now."""
    conn.execute(insert(first_seen).values(task_pk=task_pk, key=key, at=at).on_conflict_do_nothing())
    known = sa.select(first_seen.c.at).where(first_seen.c.task_pk == task_pk, first_seen.c.key == key)
    moment: datetime = conn.execute(known).scalar_one()
    return moment


def forget(conn: Connection, task_pk: int, key: str) -> None:
    conn.execute(sa.delete(first_seen).where(first_seen.c.task_pk == task_pk, first_seen.c.key == key))


def since(conn: Connection, forge: str, repository_id: int, name: str) -> str | None:
    """The moment up to which this list of a repository was read."""
    where = (
        forge_cursors.c.forge == forge,
        forge_cursors.c.repository_id == repository_id,
        forge_cursors.c.name == name,
    )
    return conn.execute(sa.select(forge_cursors.c.since).where(*where)).scalar()


def read_up_to(conn: Connection, forge: str, repository_id: int, name: str, moment: str) -> None:
    statement = insert(forge_cursors).values(forge=forge, repository_id=repository_id, name=name, since=moment)
    key = ["forge", "repository_id", "name"]
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_={"since": moment}))

"""Stores repositories of forges by id, with their current name and address."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import Row, repositories


def remember_repository(conn: Connection, forge: str, values: Mapping[str, Any]) -> None:
    """Keep a repository's present name and address under the id that survives a rename."""
    statement = insert(repositories).values(forge=forge, **values)
    rest = {name: statement.excluded[name] for name in values if name != "id"}
    conn.execute(statement.on_conflict_do_update(index_elements=["forge", "id"], set_=rest))


def repository(conn: Connection, forge: str, id_: int) -> Row | None:
    where = (repositories.c.forge == forge, repositories.c.id == id_)
    return conn.execute(sa.select(repositories).where(*where)).mappings().first()


def namesakes(conn: Connection, forge: str, full_name: str, but: int) -> list[int]:
    """The ids of other repositories that had this name when we last looked."""
    where = (repositories.c.forge == forge, repositories.c.full_name == full_name, repositories.c.id != but)
    return list(conn.execute(sa.select(repositories.c.id).where(*where)).scalars())


def forget_name(conn: Connection, forge: str, id_: int) -> None:
    """A repository is gone; nobody calls it anything."""
    where = (repositories.c.forge == forge, repositories.c.id == id_)
    conn.execute(sa.update(repositories).where(*where).values(full_name=""))


def all_repositories(conn: Connection) -> list[Row]:
    """Every repository that has a name."""
    query = sa.select(repositories).where(repositories.c.full_name != "").order_by(repositories.c.full_name)
    return list(conn.execute(query).mappings())


def keeps_lfs(conn: Connection, forge: str | None, id_: int | None) -> None:
    """A run has seen that a repository keeps files in Git LFS."""
    where = (repositories.c.forge == forge, repositories.c.id == id_, ~repositories.c.keeps_lfs)
    conn.execute(sa.update(repositories).where(*where).values(keeps_lfs=True))

"""Stores repositories of forges by id, with their current name and address."""

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.repository import RepositoryRecord
from app.ports import Repository
from app.store.tables import repositories


def save_repository(conn: Connection, forge: str, repository: Repository) -> None:
    """Store a repository's current name and address under its id, which survives a rename."""
    values = vars(repository)
    statement = insert(repositories).values(forge=forge, **values)
    rest = {name: statement.excluded[name] for name in values if name != "id"}
    conn.execute(statement.on_conflict_do_update(index_elements=["forge", "id"], set_=rest))


def repository(conn: Connection, forge: str | None, id_: int | None) -> RepositoryRecord | None:
    """A repository by its forge and the forge's id."""
    where = (repositories.c.forge == forge, repositories.c.id == id_)
    row = conn.execute(sa.select(repositories).where(*where)).mappings().first()
    return RepositoryRecord(**row) if row else None


def others_named(conn: Connection, forge: str, full_name: str, except_id: int) -> list[int]:
    """The ids of other repositories that are stored under this name."""
    where = (repositories.c.forge == forge, repositories.c.full_name == full_name, repositories.c.id != except_id)
    return list(conn.execute(sa.select(repositories.c.id).where(*where)).scalars())


def clear_name(conn: Connection, forge: str, id_: int) -> None:
    """Record that a repository is gone from the forge."""
    where = (repositories.c.forge == forge, repositories.c.id == id_)
    conn.execute(sa.update(repositories).where(*where).values(full_name=""))


def all_repositories(conn: Connection) -> list[RepositoryRecord]:
    """Every repository that is on its forge, by name."""
    query = sa.select(repositories).where(repositories.c.full_name != "").order_by(repositories.c.full_name)
    return [RepositoryRecord(**row) for row in conn.execute(query).mappings()]


def mark_lfs(conn: Connection, forge: str | None, id_: int | None) -> None:
    """Record that a repository keeps files in Git LFS."""
    where = (repositories.c.forge == forge, repositories.c.id == id_, ~repositories.c.keeps_lfs)
    conn.execute(sa.update(repositories).where(*where).values(keeps_lfs=True))

"""Tracks renamed, transferred and recreated repositories by id. Forgejo sends no event for them."""

from app.ports import Fleet, Repository
from app.store import repositories


def current_name(fleet: Fleet, forge_name: str, repository_id: int, name: str) -> str:
    """The current name of a repository that a delivery calls `name`. If that is news, the forge is asked."""
    with fleet.engine.begin() as conn:
        known = repositories.repository(conn, forge_name, repository_id)
    if known is None or known.full_name == name:
        return name
    return fetch_name(fleet, forge_name, repository_id) or name


def fetch_name(fleet: Fleet, forge_name: str, repository_id: int) -> str | None:
    """Ask the forge for the name of a repository, and store it; None if the repository is gone or hidden from us."""
    repository = fleet.forges(forge_name).repository_by_id(repository_id)
    if repository is None:
        return None
    save(fleet, forge_name, repository)
    return repository.full_name


def save(fleet: Fleet, forge_name: str, repository: Repository) -> None:
    """Store a repository's name. Another one stored under this name was renamed or is gone. Its name is updated too, so
    that nothing meant for it reaches this one."""
    with fleet.engine.begin() as conn:
        repositories.save_repository(conn, forge_name, repository)
        others = repositories.others_named(conn, forge_name, repository.full_name, repository.id)
    for id_ in others:
        now = fleet.forges(forge_name).repository_by_id(id_)
        with fleet.engine.begin() as conn:
            if now is None:
                repositories.clear_name(conn, forge_name, id_)
            else:
                repositories.save_repository(conn, forge_name, now)

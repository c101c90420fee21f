"""Follows repositories that are renamed, moved or made anew: the forge says nothing of it, and only the id stays."""

from app.ports import Fleet, Repository
from app.store import repositories


def name_of(fleet: Fleet, forge_name: str, repository_id: int, told: str) -> str:
    """The present name of a repository, which somebody calls `told`: where that is news, the forge is asked."""
    with fleet.engine.begin() as conn:
        known = repositories.repository(conn, forge_name, repository_id)
    if known is None or known.full_name == told:
        return told
    return look_up(fleet, forge_name, repository_id) or told


def look_up(fleet: Fleet, forge_name: str, repository_id: int) -> str | None:
    """Ask the forge what a repository is called now; None where it is gone, or hidden from us."""
    repository = fleet.forges(forge_name).repository_by_id(repository_id)
    if repository is None:
        return None
    remember(fleet, forge_name, repository)
    return repository.full_name


def remember(fleet: Fleet, forge_name: str, repository: Repository) -> None:
    """Keep how a repository is called. One that had this name before has another now, or is gone: nothing that is meant
    for it may reach the new bearer of its name."""
    with fleet.engine.begin() as conn:
        repositories.save_repository(conn, forge_name, repository)
        former = repositories.others_named(conn, forge_name, repository.full_name, repository.id)
    for id_ in former:
        now = fleet.forges(forge_name).repository_by_id(id_)
        with fleet.engine.begin() as conn:
            if now is None:
                repositories.clear_name(conn, forge_name, id_)
            else:
                repositories.save_repository(conn, forge_name, now)

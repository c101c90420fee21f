"""Finds the forge and the repository that a task's outbox entries go to."""

from dataclasses import dataclass

from app.domain.errors import Kind, Refused, Unavailable
from app.domain.task import Task
from app.ports import Fleet, Forge
from app.store import repositories


@dataclass(frozen=True)
class Target:
    """A task's forge, and the current name and default branch of its repository."""

    forge: Forge
    name: str
    base: str


def target_of(fleet: Fleet, task: Task) -> Target:
    """Raises Unavailable while the repository is unknown, Refused if it is gone from the forge."""
    with fleet.engine.begin() as conn:
        repository = repositories.repository(conn, task.forge, task.repository_id)
    if repository is None:
        raise Unavailable(f"{task.task_id}: its repository is not known yet.")
    if not repository.full_name:
        raise Refused(Kind.UNKNOWN, f"{task.task_id}: its repository is gone from the forge.")
    return Target(fleet.forges(repository.forge), repository.full_name, repository.default_branch)

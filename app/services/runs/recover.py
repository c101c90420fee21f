"""Checks the forge for commits of a run that was lost or whose host does not answer, before a retry."""

from collections.abc import Mapping
from typing import Any

from app.domain.errors import Refused, Unavailable
from app.domain.run import Run, may_have_delivered
from app.domain.task import Task
from app.ports import Fleet
from app.store import repositories, runs, tasks


def find_delivered(fleet: Fleet, run: Run, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a lost run whose commit is on the forge: it has finished. None if the forge has no commit of it.

    Raises Unavailable if the forge does not answer.
    """
    if not may_have_delivered(result):
        return None
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, run.task_pk)
        repository = repositories.repository(conn, task.forge, task.repository_id)
        known = _known_heads(task, runs.of_task(conn, task.id), run)
    if not repository or not task.branch or task.run != run.number:
        return None
    head = _head(fleet, task, repository.full_name)
    if head is None or head in known | {result.get("base")} or result.get("head") not in (None, head):
        return None
    return {**result, "end": "finished", "pushed": True, "head": head, "adopted": True}


def _known_heads(task: Task, all_runs: list[Run], run: Run) -> set[str | None]:
    """Heads of the branch before this run: in review, or pushed by an earlier run."""
    before = [other.result or {} for other in all_runs if other.number < run.number]
    return {task.head, *(result.get("head") for result in before)}


def _head(fleet: Fleet, task: Task, full_name: str) -> str | None:
    try:
        return fleet.forges(task.forge or "").branch_head(full_name, task.branch or "")
    except Unavailable:
        raise
    except Refused:  # the forge is no longer declared, or rejects our token
        return None

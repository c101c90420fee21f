"""Asks the forge what a run that cannot tell any more has delivered, before anything is started again."""

from collections.abc import Mapping
from typing import Any

from app.domain.errors import Refused, Unavailable
from app.domain.run import Run, may_have_delivered
from app.domain.task import Task
from app.ports import Fleet
from app.store import repositories, runs, tasks


def saved(fleet: Fleet, run: Run, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a run that ended `lost`, or whose host does not answer, made good by what it pushed: its commit is
    on the forge, so the run has finished. None when nothing of it is there. Raises Unavailable: then nobody knows."""
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
    """What the branch held before this run: offered for review, or pushed by an earlier one."""
    before = [other.result or {} for other in all_runs if other.number < run.number]
    return {task.head, *(result.get("head") for result in before)}


def _head(fleet: Fleet, task: Task, full_name: str) -> str | None:
    try:
        return fleet.forges(task.forge or "").branch_head(full_name, task.branch or "")
    except Unavailable:
        raise
    except Refused:  # it is not declared any more, or lets us in no more: there is nobody to ask
        return None

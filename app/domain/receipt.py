"""A receipt: the proof of finished work. Who, where, which commits, what it cost, what was checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.task import Task


def write(
    task: Task, brief: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], merged: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The receipt of a completed task as JSON. `runs` in their order; `merged` is the pull request as the forge
    has it, None where none was wanted."""
    last = runs[-1] if runs else {}
    return {
        "version": 1,
        "task_id": task.task_id,
        "title": brief["title"],
        "prompt_sha256": brief["prompt_sha256"],
        "repository": brief["repository"],
        "issue": brief["issue"],
        "branch": task.branch,
        "pull_request": dict(merged) if merged else None,
        "runs": [_run(run) for run in runs],
        "reviews": task.review_count,
        "commits": [sha for run in runs for sha in run.get("commits", [])],
        "validation": last.get("validation", []),
        "usage": _total([run.get("usage") or {} for run in runs]),
        "started_at": runs[0]["started_at"] if runs else None,
        "completed_at": task.completed_at.isoformat() if task.completed_at else None,
    }


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "number",
        "host_id",
        "agent_id",
        "cli",
        "session",
        "started_at",
        "ended_at",
        "end",
        "commits",
        "validation",
        "usage",
    )
    return {name: run.get(name) for name in kept}


def _total(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each counter summed over the runs that gave it; None where none did."""
    names = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
    given = {name: [usage[name] for usage in usages if usage.get(name) is not None] for name in names}
    return {name: sum(values) if values else None for name, values in given.items()}

"""A receipt: the proof of finished work. Who, where, which commits, what it cost, what was checked."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.domain.task import Task

Json = Mapping[str, Any]


def write(
    task: Task, brief: Json, runs: Sequence[Json], merged: Json | None, told: Sequence[Json] = (), fleet: str = ""
) -> dict[str, Any]:
    """The receipt of a completed task as JSON. `runs` in their order; `merged` is the pull request as the forge
    has it, None where none was wanted; `told` the task's events, in their order; `fleet` the instance's name."""
    last = runs[-1] if runs else {}
    return {
        "version": 2,
        "fleet": fleet,
        "task_id": task.task_id,
        "title": brief["title"],
        "prompt_sha256": brief["prompt_sha256"],
        "repository": brief["repository"],
        "issue": brief["issue"],
        "branch": task.branch,
        "pull_request": dict(merged) if merged else None,
        "runs": [_run(run) for run in runs],
        "reviews": task.review_count,
        "reviewers": _reviewers(told, merged),
        "commits": [sha for run in runs for sha in run.get("commits", [])],
        "validation": last.get("validation", []),
        "usage": _total([run.get("usage") or {} for run in runs]),
        "history": {"events": len(told), "head": chain(task.task_id, told)},
        "started_at": runs[0]["started_at"] if runs else None,
        "completed_at": task.completed_at.isoformat() if task.completed_at else None,
    }


def chain(task_id: str, told: Iterable[Json]) -> str:
    """The head of the chain of a task's events: each link is the hash of the one before it and the event. Whoever holds
    the history can make it again; none of it can be changed, left out or added without another head."""
    head = hashlib.sha256(task_id.encode()).hexdigest()
    for event in told:
        head = hashlib.sha256(f"{head}\n{canonical(event)}".encode()).hexdigest()
    return head


def canonical(value: Any) -> str:
    """The one way to write a JSON value down."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def text(proof: Json) -> str:
    """A receipt as a file."""
    return json.dumps(proof, indent=2, sort_keys=True) + "\n"


def _run(run: Json) -> dict[str, Any]:
    kept = (
        "number", "host_id", "agent_id", "cli", "cli_version", "session", "started_at", "ended_at", "end", "commits",
        "validation", "usage",
    )  # fmt: skip
    return {name: run.get(name) for name in kept}


def _reviewers(told: Sequence[Json], merged: Json | None) -> list[dict[str, Any]]:
    """Who asked for changes and who approved, each once."""
    asked = [str(event["detail"].get("by")) for event in told if event["fact"] == "changes_requested"]
    rounds = [(name, "changes_requested") for names in asked for name in names.split(", ")]
    approved = [(name, "approved") for name in (merged or {}).get("approved_by") or ()]
    return [{"login": login, "said": said} for login, said in dict.fromkeys([*rounds, *approved])]


def _total(usages: Sequence[Json]) -> dict[str, Any]:
    """Each counter summed over the runs that gave it; None where none did."""
    names = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
    given = {name: [usage[name] for usage in usages if usage.get(name) is not None] for name in names}
    return {name: sum(values) if values else None for name, values in given.items()}

"""Writes a receipt, the proof of finished work: who, where, which commits, cost, checks."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.domain.task import Task
from app.domain.task_details import TaskDetails

Json = Mapping[str, Any]


def write(
    task: Task,
    details: TaskDetails,
    runs: Sequence[Json],
    merged: Json | None,
    events: Sequence[Json] = (),
    fleet: str = "",
) -> dict[str, Any]:
    """The receipt of a completed task as JSON.

    `details` has the task's texts. `runs` and `events` are in their order. `merged` is the pull request on the forge,
    None where none was wanted. `fleet` is the name of the installation.
    """
    last = runs[-1] if runs else {}
    return {
        "version": 2,
        "fleet": fleet,
        "task_id": task.task_id,
        "title": details.title,
        "prompt_sha256": details.prompt.hash,
        "repository": details.repository,
        "issue": details.text.issue,
        "branch": task.branch,
        "pull_request": dict(merged) if merged else None,
        "runs": [_run(run) for run in runs],
        "reviews": task.review_count,
        "reviewers": _reviewers(events, merged),
        "commits": [sha for run in runs for sha in run.get("commits", [])],
        "validation": last.get("validation", []),
        "usage": _total([run.get("usage") or {} for run in runs]),
        "history": {"events": len(events), "head": chain(task.task_id, events)},
        "started_at": runs[0]["started_at"] if runs else None,
        "completed_at": task.completed_at.isoformat() if task.completed_at else None,
    }


def chain(task_id: str, events: Iterable[Json]) -> str:
    """The last hash of the chain over a task's events: each hash covers the previous one and an event.

    The history alone is enough to compute it. Any change, omission or addition gives another hash.
    """
    head = hashlib.sha256(task_id.encode()).hexdigest()
    for event in events:
        head = hashlib.sha256(f"{head}\n{canonical(event)}".encode()).hexdigest()
    return head


def canonical(value: Any) -> str:
    """The canonical text of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def text(proof: Json) -> str:
    """The text of a receipt's file."""
    return json.dumps(proof, indent=2, sort_keys=True) + "\n"


def _run(run: Json) -> dict[str, Any]:
    kept = (
        "number", "host_id", "agent_id", "cli", "cli_version", "session", "started_at", "ended_at", "end", "commits",
        "validation", "usage",
    )  # fmt: skip
    return {name: run.get(name) for name in kept}


def _reviewers(events: Sequence[Json], merged: Json | None) -> list[dict[str, Any]]:
    """The people who requested changes or approved, each once."""
    asked = [str(event["detail"].get("by")) for event in events if event["fact"] == "changes_requested"]
    rounds = [(name, "changes_requested") for names in asked for name in names.split(", ")]
    approved = [(name, "approved") for name in (merged or {}).get("approved_by") or ()]
    return [{"login": login, "said": said} for login, said in dict.fromkeys([*rounds, *approved])]


def _total(usages: Sequence[Json]) -> dict[str, Any]:
    """Each counter summed over the runs that gave it; None where none did."""
    names = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
    given = {name: [usage[name] for usage in usages if usage.get(name) is not None] for name in names}
    return {name: sum(values) if values else None for name, values in given.items()}

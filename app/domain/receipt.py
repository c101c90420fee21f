"""Writes a receipt, the proof of finished work: who, where, which commits, cost, checks."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from app.domain.task import Task
from app.domain.task_details import TaskDetails

SPENT = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")


class MergedPull(TypedDict):
    """A pull request that was merged. `approved_by` are the logins whose approval counts."""

    number: int
    url: str
    merge_commit: str | None
    merged_by: str | None
    approved_by: list[str]


class RunProof(TypedDict):
    """What a receipt shows of a run; moments are RFC 3339. A run has either a host or an agent."""

    number: int
    host_id: str | None
    agent_id: str | None
    cli: str | None
    cli_version: str | None
    session: str | None
    started_at: str | None
    ended_at: str | None
    end: str | None
    commits: list[str] | None
    validation: list[Mapping[str, object]] | None  # {command, exit_code, seconds?, tail?}
    usage: Mapping[str, float | None] | None


class Reviewer(TypedDict):
    """A person and what they said: changes_requested or approved."""

    login: str
    said: str


class History(TypedDict):
    """How many events a task has, and the last hash of the chain over them."""

    events: int
    head: str


class Receipt(TypedDict):
    """The receipt of a completed task. `usage` is summed over its runs; moments are RFC 3339."""

    version: int
    fleet: str
    task_id: str
    title: str
    prompt_sha256: str
    repository: Mapping[str, object] | None
    issue: Mapping[str, object] | None
    branch: str | None
    pull_request: MergedPull | None
    runs: list[RunProof]
    reviews: int
    reviewers: list[Reviewer]
    commits: list[str]
    validation: list[Mapping[str, object]]  # of the last run
    usage: dict[str, float | None]
    history: History
    started_at: str | None
    completed_at: str | None


def write(
    task: Task,
    details: TaskDetails,
    runs: Sequence[RunProof],
    merged: MergedPull | None,
    events: Sequence[Mapping[str, Any]] = (),
    fleet: str = "",
) -> Receipt:
    """The receipt of a completed task.

    `details` has the task's texts. `runs` and `events` (as the API shows them) are in their order. `merged` is the pull
    request on the forge, None where none was wanted. `fleet` is the name of the installation.
    """
    return {
        "version": 2,
        "fleet": fleet,
        "task_id": task.task_id,
        "title": details.title,
        "prompt_sha256": details.prompt.hash,
        "repository": details.repository,
        "issue": details.text.issue,
        "branch": task.branch,
        "pull_request": merged,
        "runs": list(runs),
        "reviews": task.review_count,
        "reviewers": _reviewers(events, merged),
        "commits": [sha for run in runs for sha in run["commits"] or []],
        "validation": (runs[-1]["validation"] or []) if runs else [],
        "usage": _total([run["usage"] or {} for run in runs]),
        "history": {"events": len(events), "head": chain(task.task_id, events)},
        "started_at": runs[0]["started_at"] if runs else None,
        "completed_at": task.completed_at.isoformat() if task.completed_at else None,
    }


def prove_run(run: Mapping[str, Any], cli_version: str | None = None) -> RunProof:
    """What proves something of a run, which is given as the API shows it. `cli_version` counts if the run has none."""
    return {
        "number": run["number"],
        "host_id": run.get("host_id"),
        "agent_id": run.get("agent_id"),
        "cli": run.get("cli"),
        "cli_version": run.get("cli_version") or cli_version,
        "session": run.get("session"),
        "started_at": run.get("started_at"),
        "ended_at": run.get("ended_at"),
        "end": run.get("end"),
        "commits": run.get("commits"),
        "validation": run.get("validation"),
        "usage": run.get("usage"),
    }


def chain(task_id: str, events: Iterable[Mapping[str, object]]) -> str:
    """The last hash of the chain over a task's events: each hash covers the previous one and an event.

    The history alone is enough to compute it. Any change, omission or addition gives another hash.
    """
    head = hashlib.sha256(task_id.encode()).hexdigest()
    for event in events:
        head = hashlib.sha256(f"{head}\n{canonical(event)}".encode()).hexdigest()
    return head


def canonical(value: object) -> str:
    """The canonical text of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def text(proof: Mapping[str, object]) -> str:
    """The text of a receipt's file."""
    return json.dumps(proof, indent=2, sort_keys=True) + "\n"


def _reviewers(events: Sequence[Mapping[str, Any]], merged: MergedPull | None) -> list[Reviewer]:
    """The people who requested changes or approved, each once."""
    asked = [str(event["detail"].get("by")) for event in events if event["fact"] == "changes_requested"]
    rounds = [(name, "changes_requested") for names in asked for name in names.split(", ")]
    approved = [(name, "approved") for name in (merged.get("approved_by", ()) if merged else ())]
    return [{"login": login, "said": said} for login, said in dict.fromkeys([*rounds, *approved])]


def _total(usages: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Each counter summed over the runs that gave it; None where none did."""
    given = {name: [spent for usage in usages if (spent := usage.get(name)) is not None] for name in SPENT}
    return {name: sum(values) if values else None for name, values in given.items()}

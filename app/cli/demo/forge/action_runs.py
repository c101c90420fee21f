"""Ends runs of Forgejo Actions: sets the commit status and sends the webhooks."""

from __future__ import annotations

import json

from . import repository_json, webhook_payloads
from .models import Issue, Json, Repository, Status
from .store import Store


def finish(store: Store, repo: Repository, sha: str, status: str, workflow: str) -> None:
    """Everything but success is sent as a failure; success after a failure sends `recover` too."""
    one = next((one for one in repo.issues.values() if one.pull and one.pull.head_sha == sha), None)
    last = next((run for run in reversed(repo.runs) if run["workflow_id"] == workflow), None)
    this = _run(store, repo, one, sha, status, workflow)
    repo.runs.append(this)
    state = "success" if status == "success" else "failure"
    repo.statuses.setdefault(sha, []).append(
        Status(
            next(store.status_ids),
            state,
            f"{workflow} / test (pull_request)",
            "",
            this["html_url"],
            repo.owner,
            store.now(),
        )
    )
    store.announce(repo, f"action_run_{state}", webhook_payloads.run(state, this, "running", last))
    if state == "success" and last and last["status"] != "success":
        store.announce(repo, "action_run_recover", webhook_payloads.run("recover", this, "running", last))


def _run(store: Store, repo: Repository, one: Issue | None, sha: str, status: str, workflow: str) -> Json:
    number, now = next(store.run_ids), repository_json.when(store.now())
    doer = one.user if one else repo.owner
    cause = webhook_payloads.pull(store, repo, one, "synchronized", doer) if one else {}
    event = "pull_request" if one else "push"
    return {
        "id": number,
        "title": one.title if one else sha[:10],
        "repository": repository_json.repository(store, repo, repo.owner),
        "workflow_id": workflow,
        "index_in_repo": len(repo.runs) + 1,
        "trigger_user": repository_json.user(store, doer),
        "ScheduleID": 0,
        "prettyref": f"#{one.number}" if one else repo.default_branch,
        "is_ref_deleted": False,
        "commit_sha": sha,
        "is_fork_pull_request": False,
        "need_approval": False,
        "approved_by": 0,
        "event": event,
        "event_payload": json.dumps(cause, separators=(",", ":")),
        "trigger_event": event,
        "status": status,
        "started": now,
        "stopped": now,
        "created": now,
        "updated": now,
        "duration": 1_000_000_000,
        "html_url": f"{repository_json.html(store, repo)}/actions/runs/{len(repo.runs) + 1}",
    }

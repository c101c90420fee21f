"""Writes the bodies of webhooks, key for key and in Forgejo's order."""

from __future__ import annotations

from . import commits, git_commands, issue_json, repository_json
from .git_commands import ZERO
from .models import Comment, Issue, Json, Repository, Review, User
from .store import Store

REVIEW_TYPES = {
    "APPROVED": "pull_request_review_approved",
    "REQUEST_CHANGES": "pull_request_review_rejected",
    "COMMENT": "pull_request_review_comment",
}


def issue(
    store: Store,
    repo: Repository,
    one: Issue,
    action: str,
    doer: User,
    changes: Json | None = None,
    commit_id: str = "",
) -> Json:
    return {
        "action": action,
        "number": one.number,
        **({"changes": changes} if changes else {}),
        "issue": issue_json.issue(store, repo, one),
        "repository": repository_json.repository(store, repo, one.user),
        "sender": repository_json.user(store, doer),
        "commit_id": commit_id,
    }


def comment(
    store: Store,
    repo: Repository,
    one: Issue,
    line: Comment,
    action: str,
    doer: User,
    changes: Json | None = None,
) -> Json:
    pull = {"pull_request": issue_json.pull_request(store, repo, one, doer)} if one.pull else {}
    return {
        "action": action,
        "issue": issue_json.issue(store, repo, one),
        **pull,
        "comment": issue_json.comment(store, repo, one, line),
        **({"changes": changes} if changes else {}),
        "repository": repository_json.repository(store, repo, doer),
        "sender": repository_json.user(store, doer),
        "is_pull": bool(one.pull),
    }


def pull(
    store: Store,
    repo: Repository,
    one: Issue,
    action: str,
    doer: User,
    changes: Json | None = None,
    reviewer: User | None = None,
    review: Review | None = None,
) -> Json:
    viewer = repo.owner if action == "synchronized" else one.user
    said = {"type": REVIEW_TYPES[review.state], "content": review.body} if review else None
    return {
        "action": action,
        "number": one.number,
        **({"changes": changes} if changes else {}),
        "pull_request": issue_json.pull_request(store, repo, one, viewer),
        "requested_reviewer": repository_json.user(store, reviewer) if reviewer else None,
        "repository": repository_json.repository(store, repo, viewer),
        "sender": repository_json.user(store, doer),
        "commit_id": "",
        "review": said,
    }


def push(store: Store, repo: Repository, ref: str, old: str, new: str, doer: User) -> Json:
    """A new branch shows the last ten commits of history, not what was added."""
    tip = new if new != ZERO else old
    listed = (
        commits.between(repo, old, new)
        if ZERO not in (old, new) and old != new
        else commits.read(repo.path, tip, limit=1 if old == new else commits.NEW_BRANCH_LIMIT)
    )
    shown = [commits.in_payload(store, repo, one) for one in listed[: commits.PAYLOAD_LIMIT]]
    start = repo.default_branch if old == ZERO else old
    return {
        "ref": ref,
        "before": old,
        "after": new,
        "compare_url": f"{repository_json.html(store, repo)}/compare/{start}...{new}",
        "commits": shown if new != ZERO else [],
        "total_commits": len(listed) if new != ZERO else 0,
        "head_commit": commits.in_payload(store, repo, commits.one_of(repo, tip)) if new != ZERO else None,
        "repository": repository_json.repository(store, repo, repo.owner),
        "pusher": repository_json.user(store, doer),
        "sender": repository_json.user(store, doer),
    }


def created(store: Store, repo: Repository, ref: str, sha: str, doer: User) -> Json:
    return {
        "sha": sha,
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "repository": repository_json.repository(store, repo, repo.owner),
        "sender": repository_json.user(store, doer),
    }


def deleted(store: Store, repo: Repository, ref: str, doer: User) -> Json:
    return {
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "pusher_type": "user",
        "repository": repository_json.repository(store, repo, repo.owner),
        "sender": repository_json.user(store, doer),
    }


def test_push(store: Store, repo: Repository, doer: User) -> Json:
    sha = git_commands.branch(repo.path, repo.default_branch) or ZERO
    return push(store, repo, f"refs/heads/{repo.default_branch}", sha, sha, doer)


def run(action: str, this: Json, prior_status: str, last: Json | None = None) -> Json:
    return {
        "action": action,
        "run": this,
        "prior_status": prior_status,
        **({"last_run": last} if last else {}),
    }

"""The bodies of deliveries, key for key and in the order in which Forgejo writes them."""

from __future__ import annotations

from . import commits, objects, plumbing, talk
from .plumbing import ZERO
from .state import Comment, Issue, Json, Repository, Review, User
from .world import World

REVIEW_TYPES = {
    "APPROVED": "pull_request_review_approved",
    "REQUEST_CHANGES": "pull_request_review_rejected",
    "COMMENT": "pull_request_review_comment",
}


def issue(
    world: World,
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
        "issue": talk.issue(world, repo, one),
        "repository": objects.repository(world, repo, one.user),
        "sender": objects.user(world, doer),
        "commit_id": commit_id,
    }


def comment(
    world: World,
    repo: Repository,
    one: Issue,
    line: Comment,
    action: str,
    doer: User,
    changes: Json | None = None,
) -> Json:
    pull = {"pull_request": talk.pull_request(world, repo, one, doer)} if one.pull else {}
    return {
        "action": action,
        "issue": talk.issue(world, repo, one),
        **pull,
        "comment": talk.comment(world, repo, one, line),
        **({"changes": changes} if changes else {}),
        "repository": objects.repository(world, repo, doer),
        "sender": objects.user(world, doer),
        "is_pull": bool(one.pull),
    }


def pull(
    world: World,
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
        "pull_request": talk.pull_request(world, repo, one, viewer),
        "requested_reviewer": objects.user(world, reviewer) if reviewer else None,
        "repository": objects.repository(world, repo, viewer),
        "sender": objects.user(world, doer),
        "commit_id": "",
        "review": said,
    }


def push(world: World, repo: Repository, ref: str, old: str, new: str, doer: User) -> Json:
    """A new branch shows the last ten commits of history, not what was added."""
    tip = new if new != ZERO else old
    listed = (
        commits.between(repo, old, new)
        if ZERO not in (old, new) and old != new
        else commits.read(repo.path, tip, limit=1 if old == new else commits.NEW_BRANCH_LIMIT)
    )
    shown = [commits.in_payload(world, repo, one) for one in listed[: commits.PAYLOAD_LIMIT]]
    start = repo.default_branch if old == ZERO else old
    return {
        "ref": ref,
        "before": old,
        "after": new,
        "compare_url": f"{objects.html(world, repo)}/compare/{start}...{new}",
        "commits": shown if new != ZERO else [],
        "total_commits": len(listed) if new != ZERO else 0,
        "head_commit": commits.in_payload(world, repo, commits.one_of(repo, tip)) if new != ZERO else None,
        "repository": objects.repository(world, repo, repo.owner),
        "pusher": objects.user(world, doer),
        "sender": objects.user(world, doer),
    }


def created(world: World, repo: Repository, ref: str, sha: str, doer: User) -> Json:
    return {
        "sha": sha,
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "repository": objects.repository(world, repo, repo.owner),
        "sender": objects.user(world, doer),
    }


def deleted(world: World, repo: Repository, ref: str, doer: User) -> Json:
    return {
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "pusher_type": "user",
        "repository": objects.repository(world, repo, repo.owner),
        "sender": objects.user(world, doer),
    }


def test_push(world: World, repo: Repository, doer: User) -> Json:
    sha = plumbing.branch(repo.path, repo.default_branch) or ZERO
    return push(world, repo, f"refs/heads/{repo.default_branch}", sha, sha, doer)


def run(action: str, this: Json, prior_status: str, last: Json | None = None) -> Json:
    return {
        "action": action,
        "run": this,
        "prior_status": prior_status,
        **({"last_run": last} if last else {}),
    }

"""Writes the JSON of the REST API, key for key: issues, pull requests, comments, reviews, the timeline."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path

from . import git_commands
from .models import Comment, Issue, Json, Pull, Repository, Review, ReviewComment, User
from .repository_json import draft, html, label, people, repository, user, when
from .store import Store


def issue(store: Store, repo: Repository, one: Issue) -> Json:
    pull_part = None
    if one.pull:
        pull_part = {
            "merged": one.pull.merged,
            "merged_at": when(one.pull.merged_at),
            "draft": draft(one.title),
            "html_url": html(store, repo, one),
        }
    return {
        "id": one.id,
        "url": f"{store.url}/api/v1/repos/{repo.full_name}/issues/{one.number}",
        "html_url": html(store, repo, one),
        "number": one.number,
        "user": user(store, one.user),
        "original_author": "",
        "original_author_id": 0,
        "title": one.title,
        "body": one.body,
        "ref": "",
        "assets": [],
        "labels": [label(store, repo, each) for each in one.labels],
        "milestone": None,
        **people(store, one.assignees),
        "state": one.state,
        "is_locked": one.locked,
        "comments": len(one.comments),
        "created_at": when(one.created),
        "updated_at": when(one.updated),
        "closed_at": when(one.closed),
        "due_date": None,
        "pull_request": pull_part,
        "repository": {
            "id": repo.id,
            "name": repo.name,
            "owner": repo.owner.login,
            "full_name": repo.full_name,
        },
        "pin_order": 0,
    }


@lru_cache(maxsize=4096)
def changed(path: Path, old: str, new: str) -> tuple[int, int, int]:
    rows = git_commands.numstat(path, old, new) if old and new else []
    return sum(row[0] for row in rows), sum(row[1] for row in rows), len(rows)


@lru_cache(maxsize=4096)
def mergeable(path: Path, base: str, head: str) -> bool:
    try:
        return bool(git_commands.merged_tree(path, base, head))
    except git_commands.Refused:
        return False


def head_of(repo: Repository, one: Issue, pull: Pull) -> tuple[str, str]:
    """Where the head is now: its branch, or when that is gone the ref kept for the pull request."""
    if sha := git_commands.branch(repo.path, pull.head):
        return pull.head, sha
    return f"refs/pull/{one.number}/head", pull.head_sha


def pull_request(store: Store, repo: Repository, one: Issue, viewer: User | None) -> Json:
    pull = one.pull
    assert pull is not None
    web = html(store, repo, one)
    base_sha = git_commands.branch(repo.path, pull.base) or ""
    additions, deletions, files = changed(repo.path, pull.merge_base, pull.head_sha)
    return {
        "id": pull.id,
        "url": f"{store.url}/api/v1/repos/{repo.full_name}/pulls/{one.number}",
        "number": one.number,
        "user": user(store, one.user),
        "title": one.title,
        "body": one.body,
        "labels": [label(store, repo, each) for each in one.labels],
        "milestone": None,
        **people(store, one.assignees),
        "requested_reviewers": [user(store, each) for each in pull.requested],
        "requested_reviewers_teams": [],
        "state": one.state,
        "draft": draft(one.title),
        "is_locked": one.locked,
        "comments": len(one.comments),
        "review_comments": sum(each.state != "REQUEST_REVIEW" for each in pull.reviews),
        "additions": additions,
        "deletions": deletions,
        "changed_files": files,
        "html_url": web,
        "diff_url": f"{web}.diff",
        "patch_url": f"{web}.patch",
        "mergeable": pull.merged or mergeable(repo.path, base_sha, pull.head_sha),
        **_merge(store, pull),
        "allow_maintainer_edit": False,
        **_branches(store, repo, one, pull, viewer),
        "due_date": None,
        **_times(one),
        "pin_order": 0,
        "flow": pull.flow,
    }


def _merge(store: Store, pull: Pull) -> Json:
    return {
        "merged": pull.merged,
        "merged_at": when(pull.merged_at),
        "merge_commit_sha": pull.merge_commit,
        "merged_by": user(store, pull.merged_by) if pull.merged_by else None,
    }


def _times(one: Issue) -> Json:
    return {"created_at": when(one.created), "updated_at": when(one.updated), "closed_at": when(one.closed)}


def _branches(store: Store, repo: Repository, one: Issue, pull: Pull, viewer: User | None) -> Json:
    whole = repository(store, repo, viewer)
    head_ref, head_sha = head_of(repo, one, pull)
    base_sha = git_commands.branch(repo.path, pull.base) or ""
    return {
        "base": {"label": pull.base, "ref": pull.base, "sha": base_sha, "repo_id": repo.id, "repo": whole},
        "head": {"label": pull.head, "ref": head_ref, "sha": head_sha, "repo_id": repo.id, "repo": whole},
        "merge_base": pull.merge_base,
    }


def comment(store: Store, repo: Repository, one: Issue, line: Comment) -> Json:
    web = html(store, repo, one)
    return {
        "id": line.id,
        "html_url": f"{web}#issuecomment-{line.id}",
        "pull_request_url": web if one.pull else "",
        "issue_url": "" if one.pull else web,
        "user": user(store, line.user),
        "original_author": "",
        "original_author_id": 0,
        "body": line.body,
        "assets": [],
        "created_at": when(line.created),
        "updated_at": when(line.updated),
    }


def timeline(store: Store, repo: Repository, one: Issue, line: Comment) -> Json:
    same = comment(store, repo, one, line)
    for key in ("original_author", "original_author_id", "assets"):
        del same[key]
    nothing = dict.fromkeys(
        [
            "assignee",
            "assignee_team",
            "dependent_issue",
            "milestone",
            "old_milestone",
            "ref_comment",
            "ref_issue",
            "resolve_doer",
            "tracked_time",
        ]
    )
    return {
        **same,
        "type": line.kind,
        "label": label(store, repo, line.label) if line.label else None,
        **nothing,
        "new_ref": "",
        "new_title": "",
        "old_ref": "",
        "old_title": "",
        "old_project_id": 0,
        "project_id": 0,
        "ref_action": "none",
        "ref_commit_sha": "",
        "removed_assignee": False,
        "review_id": 0,
        **line.more,
    }


def reaction(store: Store, one: tuple[User, str, datetime]) -> Json:
    return {"user": user(store, one[0]), "content": one[1], "created_at": when(one[2])}


def review(store: Store, repo: Repository, one: Issue, this: Review) -> Json:
    web = html(store, repo, one)
    return {
        "id": this.id,
        "user": user(store, this.user),
        "team": None,
        "state": this.state,
        "body": this.body,
        "commit_id": this.commit_id,
        "stale": this.stale,
        "official": this.official,
        "dismissed": this.dismissed,
        "comments_count": len(this.comments),
        "submitted_at": when(this.submitted),
        "updated_at": when(this.submitted),
        "html_url": f"{web}#issuecomment-{this.id}",
        "pull_request_url": web,
    }


def review_comment(store: Store, repo: Repository, one: Issue, this: Review, note: ReviewComment) -> Json:
    web = html(store, repo, one)
    return {
        "id": note.id,
        "body": note.body,
        "user": user(store, note.user),
        "resolver": None,
        "pull_request_review_id": this.id,
        "created_at": when(note.created),
        "updated_at": when(note.created),
        "path": note.path,
        "commit_id": note.commit_id,
        "original_commit_id": note.commit_id,
        "diff_hunk": note.hunk,
        "position": max(note.line, 0),
        "original_position": max(-note.line, 0),
        "extra_lines_count": 0,
        "html_url": f"{web}#issuecomment-{note.id}",
        "pull_request_url": web,
    }

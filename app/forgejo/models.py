"""The forge's answers in our words."""

import re
from typing import Any

from app.ports import Account, Comment, Issue, Note, Pull, Repository, Review

Json = Any
_NUMBER = re.compile(r"/(issues|pulls)/(\d{1,18})(?:#.*)?$")


def repository(found: Json) -> Repository:
    return Repository(found["id"], found["full_name"], found["clone_url"], found["default_branch"])


def account(found: Json | None) -> Account:
    """Who did something; an account that is gone is nobody."""
    given = found or {}
    return Account(int(given.get("id") or 0), str(given.get("login") or ""), str(given.get("full_name") or ""))


def issue(found: Json) -> Issue:
    return Issue(
        number=found["number"],
        title=found["title"],
        body=found.get("body") or "",
        url=found["html_url"],
        open=found["state"] == "open",
        labels=tuple(label["name"] for label in found.get("labels") or ()),
        author=account(found["user"]),
        assignees=tuple(account(one) for one in found.get("assignees") or ()),
        repository_id=int((found.get("repository") or {}).get("id") or 0),
    )


def pull(found: Json, branch: str | None = None) -> Pull:
    return Pull(
        number=found["number"],
        title=found["title"],
        url=found["html_url"],
        branch=branch or _branch(found["head"], found["base"]),
        head=found["head"]["sha"],
        open=found["state"] == "open",
        merged=bool(found.get("merged")),
        merge_commit=found.get("merge_commit_sha"),
        merged_by=(found.get("merged_by") or {}).get("login"),
        closed_at=found.get("closed_at"),
        draft=bool(found.get("draft")),
        mergeable=found.get("mergeable"),
        author=account(found.get("user")),
        base=str(found["base"].get("ref") or ""),
        flow=int(found.get("flow") or 0),
        repository_id=int(found["base"].get("repo_id") or 0),
        body=found.get("body") or "",
    )


def review(found: Json) -> Review:
    return Review(
        id=found["id"],
        by=account(found["user"]),
        state=found["state"],
        text=found.get("body") or "",
        official=bool(found.get("official")),
        notes=int(found.get("comments_count") or 0),
        stale=bool(found.get("stale")),
    )


def note(found: Json) -> Note:
    """`position` is the line's number in the new file, `original_position` in the old one."""
    return Note(
        path=str(found["path"]),
        line=found.get("position") or None,
        text=found.get("body") or "",
        hunk=found.get("diff_hunk") or "",
        by=account(found.get("user")),
    )


def comment(found: Json) -> Comment | None:
    """None for a comment that says not where it stands."""
    where = found.get("pull_request_url") or found.get("issue_url") or found.get("html_url") or ""
    at = _NUMBER.search(where)
    if at is None:
        return None
    return Comment(
        id=found["id"],
        number=int(at[2]),
        is_pull=at[1] == "pulls",
        author=account(found["user"]),
        body=found.get("body") or "",
        created_at=found["created_at"],
        updated_at=found["updated_at"],
    )


def _branch(head: Json, base: Json) -> str:
    """The name of the head's branch, also when it is deleted by now; empty when it is another repository's."""
    return str(head.get("label") or head["ref"]) if head.get("repo_id") == base.get("repo_id") else ""

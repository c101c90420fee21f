"""Parses the forge's JSON answers into typed objects."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.ports import Account, Comment, Issue, Pull, Repository, Review, ReviewComment

Found = Mapping[str, Any]  # one object of the forge's JSON
_NUMBER = re.compile(r"/(issues|pulls)/(\d{1,18})(?:#.*)?$")


@dataclass(frozen=True)
class Label:
    """A label of a repository or an organisation. Names are not unique."""

    id: int
    name: str


@dataclass(frozen=True)
class CommitStatus:
    """The newest status of one context of a commit."""

    context: str
    state: str
    description: str


@dataclass(frozen=True)
class TimelineEntry:
    """An entry of an issue's timeline.

    `added` says that `label` was put on; `removed`, that `assignee` was taken away.
    """

    id: int
    kind: str
    account: Account
    label: str = ""
    added: bool = False
    assignee: int | None = None
    removed: bool = False


def parse_repository(found: Found) -> Repository:
    return Repository(found["id"], found["full_name"], found["clone_url"], found["default_branch"])


def parse_account(found: Found | None) -> Account:
    """The account in an answer; one with id 0 if the account was deleted."""
    given = found or {}
    return Account(int(given.get("id") or 0), str(given.get("login") or ""), str(given.get("full_name") or ""))


def parse_issue(found: Found) -> Issue:
    return Issue(
        number=found["number"],
        title=found["title"],
        body=found.get("body") or "",
        url=found["html_url"],
        open=found["state"] == "open",
        labels=tuple(label["name"] for label in found.get("labels") or ()),
        author=parse_account(found["user"]),
        assignees=tuple(parse_account(one) for one in found.get("assignees") or ()),
        repository_id=int((found.get("repository") or {}).get("id") or 0),
    )


def parse_pull(found: Found, branch: str | None = None) -> Pull:
    """A pull request; `branch` is the name of its head branch if the caller knows it."""
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
        author=parse_account(found.get("user")),
        base=str(found["base"].get("ref") or ""),
        flow=int(found.get("flow") or 0),
        repository_id=int(found["base"].get("repo_id") or 0),
        body=found.get("body") or "",
    )


def parse_review(found: Found) -> Review:
    return Review(
        id=found["id"],
        author=parse_account(found["user"]),
        state=found["state"],
        text=found.get("body") or "",
        official=bool(found.get("official")),
        comments=int(found.get("comments_count") or 0),
        stale=bool(found.get("stale")),
    )


def parse_review_comment(found: Found) -> ReviewComment:
    """The forge's `position` is the line's number in the new file; `original_position` is that in the old one."""
    return ReviewComment(
        path=str(found["path"]),
        line=found.get("position") or None,
        text=found.get("body") or "",
        hunk=found.get("diff_hunk") or "",
        author=parse_account(found.get("user")),
    )


def parse_comment(found: Found) -> Comment | None:
    """A comment; None if the answer does not name its issue or pull request."""
    url = found.get("pull_request_url") or found.get("issue_url") or found.get("html_url") or ""
    found_at = _NUMBER.search(url)
    if found_at is None:
        return None
    return Comment(
        id=found["id"],
        number=int(found_at[2]),
        is_pull=found_at[1] == "pulls",
        author=parse_account(found["user"]),
        body=found.get("body") or "",
        created_at=found["created_at"],
        updated_at=found["updated_at"],
    )


def parse_label(found: Found) -> Label:
    return Label(int(found["id"]), str(found["name"]))


def parse_commit_status(found: Found) -> CommitStatus:
    return CommitStatus(
        str(found.get("context") or ""), str(found.get("status") or ""), str(found.get("description") or "")
    )


def parse_timeline_entry(found: Found) -> TimelineEntry:
    """The forge writes "1" into the body of an entry that puts a label on an issue, and nothing if it takes it off."""
    return TimelineEntry(
        id=int(found["id"]),
        kind=str(found.get("type") or ""),
        account=parse_account(found["user"]),
        label=str((found.get("label") or {}).get("name") or ""),
        added=found.get("body") == "1",
        assignee=(found.get("assignee") or {}).get("id"),
        removed=bool(found.get("removed_assignee")),
    )


def _branch(head: Found, base: Found) -> str:
    """The name of the head branch, also after it was deleted; empty if it is in another repository."""
    return str(head.get("label") or head["ref"]) if head.get("repo_id") == base.get("repo_id") else ""

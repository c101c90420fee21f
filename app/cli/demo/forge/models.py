"""Defines the records of a forge: users, repositories, issues, pulls, reviews, comments, labels, hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass
class User:
    id: int
    login: str
    full_name: str
    created: datetime
    is_admin: bool = False
    owners: set[str] | None = None  # logins that own it; only an organisation has them


@dataclass
class Label:
    id: int
    name: str
    color: str
    description: str = ""
    exclusive: bool = False
    is_archived: bool = False


@dataclass
class Comment:
    """One line of the timeline: a real comment, or a label, close, merge ... event."""

    id: int
    kind: str
    user: User
    body: str
    created: datetime
    updated: datetime
    label: Label | None = None
    more: Json = field(default_factory=dict)
    reactions: list[tuple[User, str, datetime]] = field(default_factory=list)


@dataclass
class ReviewComment:
    id: int
    path: str
    line: int
    body: str
    user: User
    commit_id: str
    created: datetime
    hunk: str


@dataclass
class Review:
    id: int
    user: User
    state: str
    body: str
    commit_id: str
    submitted: datetime
    official: bool
    stale: bool = False
    dismissed: bool = False
    comments: list[ReviewComment] = field(default_factory=list)


@dataclass
class Pull:
    id: int
    base: str
    head: str
    head_sha: str
    merge_base: str
    merged: bool = False
    merged_at: datetime | None = None
    merged_by: User | None = None
    merge_commit: str | None = None
    requested: list[User] = field(default_factory=list)
    reviews: list[Review] = field(default_factory=list)
    flow: int = 0


@dataclass
class Issue:
    id: int
    number: int
    user: User
    title: str
    body: str
    created: datetime
    updated: datetime
    state: str = "open"
    closed: datetime | None = None
    locked: bool = False
    labels: list[Label] = field(default_factory=list)
    assignees: list[User] = field(default_factory=list)
    timeline: list[Comment] = field(default_factory=list)
    reactions: list[tuple[User, str, datetime]] = field(default_factory=list)
    pull: Pull | None = None

    @property
    def comments(self) -> list[Comment]:
        return [line for line in self.timeline if line.kind == "comment"]


@dataclass
class Status:
    id: int
    state: str
    context: str
    description: str
    target_url: str
    creator: User
    created: datetime


@dataclass
class Repository:
    id: int
    owner: User
    name: str
    path: Path
    created: datetime
    updated: datetime
    private: bool = False
    archived: bool = False
    description: str = ""
    default_branch: str = "main"
    collaborators: dict[str, str] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    issues: dict[int, Issue] = field(default_factory=dict)
    statuses: dict[str, list[Status]] = field(default_factory=dict)
    runs: list[Json] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        return f"{self.owner.login}/{self.name}"

    def open_pulls(self) -> list[Issue]:
        return [issue for issue in self.issues.values() if issue.pull and issue.state == "open"]


@dataclass
class Hook:
    id: int
    kind: str
    url: str
    content_type: str
    secret: str
    active: bool
    wants: set[str]
    branch_filter: str
    authorization: str
    created: datetime
    updated: datetime
    repository_id: int | None = None
    organisation: str | None = None

"""Protocols for the outside world (forge, nudge, clock), and `Fleet`, the bundle that every service receives."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine

from app.config.settings import Config
from app.domain.masking import Mask


@dataclass(frozen=True)
class Repository:
    """A repository as the forge has it. `id` is the forge's own and survives a rename."""

    id: int
    full_name: str
    clone_url: str
    default_branch: str

    def as_json(self) -> dict[str, str]:
        """As the API shows it in a task."""
        return {"full_name": self.full_name, "clone_url": self.clone_url, "default_branch": self.default_branch}


@dataclass(frozen=True)
class Account:
    """An account on a forge. `id` is the forge's own and survives a rename; 0 stands for a deleted account."""

    id: int
    login: str
    full_name: str = ""


@dataclass(frozen=True)
class Requester:
    """Who requested work on an issue. `entry` is the id of the timeline entry that records the request."""

    account: Account
    entry: int


@dataclass(frozen=True)
class Issue:
    """An issue as the forge has it now."""

    number: int
    title: str
    body: str
    url: str
    open: bool
    labels: tuple[str, ...]
    author: Account
    assignees: tuple[Account, ...] = ()
    repository_id: int = 0


@dataclass(frozen=True)
class Comment:
    """A comment on an issue or a pull request. Its timestamps are the forge's own text, unparsed."""

    id: int
    number: int
    is_pull: bool
    author: Account
    body: str
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Pull:
    """A pull request as the forge has it now.

    `branch` is the name of its head branch, empty if that is in another repository. `head` is its newest commit.
    The forge computes `mergeable` a moment after each change. `flow` is 1 for a push to `refs/for/`.
    """

    number: int
    title: str
    url: str
    branch: str
    head: str
    open: bool
    merged: bool
    merge_commit: str | None = None
    merged_by: str | None = None
    closed_at: str | None = None
    draft: bool = False
    mergeable: bool | None = None
    author: Account = Account(0, "")
    base: str = ""
    flow: int = 0
    repository_id: int = 0
    body: str = ""


@dataclass(frozen=True)
class ReviewComment:
    """A comment on a line of a pull request, with the code around it (`hunk`).

    Every reader of the repository may add one to another person's review.
    """

    path: str
    line: int | None
    text: str
    hunk: str
    author: Account


@dataclass(frozen=True)
class Review:
    """A review of a pull request.

    `state` is APPROVED, REQUEST_CHANGES or COMMENT. `official` says that its author has write permission.
    `comments` counts its comments on lines. `stale` says that there are newer commits.
    """

    id: int
    author: Account
    state: str
    text: str
    official: bool
    comments: int
    stale: bool = False


class Forge(Protocol):
    """One forge. Each call may raise Unavailable (try later) or Refused (the forge rejected it).

    A repository is named `owner/name`. A lookup returns None if the forge has no such thing.
    """

    name: str
    url: str

    def bot(self) -> Account: ...
    def server_time(self, ago: timedelta = ...) -> str | None: ...
    def repository(self, full_name: str) -> Repository | None: ...
    def repository_by_id(self, id_: int) -> Repository | None: ...
    def repositories_of(self, owner: str) -> list[Repository]: ...
    def issue(self, repository: str, number: int) -> Issue | None: ...
    def wanted_issues(self, repository: str, prefix: str) -> list[int]: ...
    def is_assigned_to_us(self, issue: Issue) -> bool: ...
    def changed_issues(self, repository: str, since: str) -> list[tuple[int, bool]]: ...
    def comments_since(self, repository: str, since: str) -> list[Comment]: ...
    def comments(self, repository: str, number: int) -> list[Comment]: ...
    def who_labelled(self, repository: str, number: int, prefix: str) -> Requester | None: ...
    def who_assigned(self, repository: str, number: int) -> Requester | None: ...
    def who_reopened(self, repository: str, number: int) -> Requester | None: ...
    def may_write(self, repository: str, login: str) -> bool | None: ...
    def is_assignable(self, repository: str, login: str) -> bool | None: ...
    def branch_head(self, repository: str, branch: str) -> str | None: ...
    def has_commit(self, repository: str, sha: str) -> bool: ...
    def contains(self, repository: str, head: str, sha: str) -> bool: ...
    def has_file(self, repository: str, branch: str, path: str) -> bool: ...
    def file(self, repository: str, branch: str, path: str) -> str | None: ...
    def check_state(self, repository: str, sha: str) -> str: ...
    def pull(self, repository: str, number: int) -> Pull | None: ...
    def find_pull(self, repository: str, branch: str, base: str) -> Pull | None: ...
    def find_open_pull(self, repository: str, branch: str, base: str, heads: Collection[str] = ()) -> Pull | None: ...
    def pull_files(self, repository: str, number: int) -> list[str]: ...
    def reviews(self, repository: str, number: int) -> list[Review]: ...
    def review_comments(self, repository: str, number: int, review: int) -> list[ReviewComment]: ...
    def create_pull(self, repository: str, branch: str, base: str, title: str, body: str) -> Pull: ...
    def set_pull_title(self, repository: str, number: int, title: str) -> None: ...
    def set_pull_body(self, repository: str, number: int, body: str) -> None: ...
    def close_pull(self, repository: str, number: int) -> None: ...
    def request_reviews(self, repository: str, number: int, logins: Sequence[str]) -> None: ...
    def set_commit_status(self, repository: str, sha: str, state: str, target: str, description: str) -> None: ...
    def write_comment(self, repository: str, number: int, marker: str, body: str, known: int | None) -> int: ...
    def add_reaction(self, repository: str, comment: int, content: str) -> None: ...
    def assign_bot(self, repository: str, number: int) -> None: ...
    def set_labels(self, repository: str, number: int, wanted: Mapping[str, str], ours: frozenset[str]) -> None: ...


class Nudge(Protocol):
    """Wakes the workers early. It may fail without harm: the next scan finds the row."""

    def soon(self) -> None: ...


Clock = Callable[[], datetime]
Forges = Callable[[str], Forge]


@dataclass(frozen=True)
class Fleet:
    """What every service receives.

    `clock` returns aware UTC datetimes. `forges` returns a forge by its name. `instance` returns the name of this
    control plane on hosts, which stays the same for as long as the database lives.
    """

    config: Config
    engine: Engine
    forges: Forges
    nudge: Nudge
    clock: Clock
    mask: Mask
    instance: Callable[[], str]

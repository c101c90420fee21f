"""What we need from outside, as Protocols: a forge, a nudge, a clock; and the bundle services work with."""

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


@dataclass(frozen=True)
class Account:
    """Somebody on a forge. `id` is the forge's own and survives a rename."""

    id: int
    login: str
    full_name: str = ""


@dataclass(frozen=True)
class Asker:
    """Who asked for work on an issue, and by which entry of its timeline."""

    who: Account
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
    """A comment on an issue or a pull request. Its moments are the forge's own, as it wrote them."""

    id: int
    number: int
    is_pull: bool
    author: Account
    body: str
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Pull:
    """A pull request as the forge has it now. `branch` is its head's name, empty when that is in another repository;
    `head` its newest commit. `mergeable` is worked out by the forge a moment after each change. `flow` is 1 for one
    that was pushed to `refs/for/`."""

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
class Note:
    """A note on a line of a pull request, with the code it is about (`hunk`). Whoever may read may answer one in a
    review of somebody else."""

    path: str
    line: int | None
    text: str
    hunk: str
    by: Account


@dataclass(frozen=True)
class Review:
    """A review. `state` is APPROVED, REQUEST_CHANGES or COMMENT; `official` says that its author may write; `notes` how
    many notes on lines it has; `stale` that there are newer commits."""

    id: int
    by: Account
    state: str
    text: str
    official: bool
    notes: int
    stale: bool = False


class Forge(Protocol):
    """One forge in our words. Each call may raise Unavailable (try later) or Refused (it said no)."""

    name: str
    url: str

    def bot(self) -> Account: ...
    def moment(self, ago: timedelta = ...) -> str | None: ...
    def repository(self, full_name: str) -> Repository | None: ...
    def repository_by_id(self, id_: int) -> Repository | None: ...
    def repositories_of(self, owner: str) -> list[Repository]: ...
    def issue(self, repository: str, number: int) -> Issue | None: ...
    def wanted_issues(self, repository: str, prefix: str) -> list[int]: ...
    def is_assigned(self, issue: Issue) -> bool: ...
    def changed_issues(self, repository: str, since: str) -> list[tuple[int, bool]]: ...
    def comments_since(self, repository: str, since: str) -> list[Comment]: ...
    def comments(self, repository: str, number: int) -> list[Comment]: ...
    def who_labelled(self, repository: str, number: int, prefix: str) -> Asker | None: ...
    def who_assigned(self, repository: str, number: int) -> Asker | None: ...
    def who_reopened(self, repository: str, number: int) -> Asker | None: ...
    def may_write(self, repository: str, login: str) -> bool | None: ...
    def is_assignable(self, repository: str, login: str) -> bool | None: ...
    def branch_head(self, repository: str, branch: str) -> str | None: ...
    def has_commit(self, repository: str, sha: str) -> bool: ...
    def contains(self, repository: str, head: str, sha: str) -> bool: ...
    def has_file(self, repository: str, branch: str, path: str) -> bool: ...
    def file(self, repository: str, branch: str, path: str) -> str | None: ...
    def ci(self, repository: str, sha: str) -> str: ...
    def pull(self, repository: str, number: int) -> Pull | None: ...
    def pull_for(self, repository: str, branch: str, base: str) -> Pull | None: ...
    def open_pull_for(self, repository: str, branch: str, base: str, heads: Collection[str] = ()) -> Pull | None: ...
    def pull_files(self, repository: str, number: int) -> list[str]: ...
    def reviews(self, repository: str, number: int) -> list[Review]: ...
    def review_notes(self, repository: str, number: int, review: int) -> list[Note]: ...
    def open_pull(self, repository: str, branch: str, base: str, title: str, body: str) -> Pull: ...
    def retitle(self, repository: str, number: int, title: str) -> None: ...
    def close_pull(self, repository: str, number: int) -> None: ...
    def describe(self, repository: str, number: int, body: str) -> None: ...
    def ask_review(self, repository: str, number: int, logins: Sequence[str]) -> None: ...
    def set_status(self, repository: str, sha: str, state: str, target: str, description: str) -> None: ...
    def comment_once(self, repository: str, number: int, marker: str, body: str, known: int | None) -> int: ...
    def react(self, repository: str, comment: int, content: str) -> None: ...
    def assign(self, repository: str, number: int) -> None: ...
    def set_labels(self, repository: str, number: int, wanted: Mapping[str, str], ours: frozenset[str]) -> None: ...


class Nudge(Protocol):
    """Wakes the workers early. May fail without harm: the next scan finds the row."""

    def soon(self) -> None: ...


Clock = Callable[[], datetime]
Forges = Callable[[str], Forge]


@dataclass(frozen=True)
class Fleet:
    """What a service works with. `clock` gives aware UTC datetimes; `forges` a forge by its name; `instance` our own
    name on hosts, the same for as long as the database lives."""

    config: Config
    engine: Engine
    forges: Forges
    nudge: Nudge
    clock: Clock
    mask: Mask
    instance: Callable[[], str]

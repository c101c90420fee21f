"""What we need from outside, as Protocols: a forge, a nudge, a clock; and the bundle services work with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Engine

from app.config import Config
from app.domain.masking import Mask


@dataclass(frozen=True)
class Repository:
    """A repository as the forge has it. `id` is the forge's own and survives a rename."""

    id: int
    full_name: str
    clone_url: str
    default_branch: str


@dataclass(frozen=True)
class Issue:
    """An issue as the forge has it now."""

    number: int
    title: str
    body: str
    url: str
    open: bool
    labels: tuple[str, ...]
    author: str


@dataclass(frozen=True)
class Pull:
    """A pull request as the forge has it now. `branch` is its head's name, empty when that is in another repository;
    `head` its newest commit."""

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


@dataclass(frozen=True)
class Review:
    """A review that asks for changes. `comments` are (path, line, text)."""

    id: int
    by: str
    text: str
    comments: tuple[tuple[str, int | None, str], ...] = ()


class Forge(Protocol):
    """One forge in our words. Each call may raise Unavailable (try later) or Refused (it said no)."""

    name: str

    def bot(self) -> str: ...
    def repository(self, full_name: str) -> Repository | None: ...
    def issue(self, repository: str, number: int) -> Issue | None: ...
    def wanted_issues(self, repository: str, prefix: str) -> list[int]: ...
    def who_labelled(self, repository: str, number: int, prefix: str) -> str | None: ...
    def may_write(self, repository: str, login: str) -> bool | None: ...
    def pull(self, repository: str, number: int) -> Pull | None: ...
    def pull_for(self, repository: str, branch: str, base: str) -> Pull | None: ...
    def open_pull(self, repository: str, branch: str, base: str, title: str, body: str) -> Pull: ...
    def branch_head(self, repository: str, branch: str) -> str | None: ...
    def has_commit(self, repository: str, sha: str) -> bool: ...
    def has_file(self, repository: str, branch: str, path: str) -> bool: ...
    def reviews_asking_for_changes(self, repository: str, number: int) -> list[Review]: ...
    def comment_once(self, repository: str, number: int, marker: str, body: str, known: int | None) -> int: ...
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

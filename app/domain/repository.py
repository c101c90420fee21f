"""Forges and repositories as the fleet knows them: the forge, the rule of fleet.toml, the stored repository."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ForgeRecord:
    """A forge that fleet.toml declares. Its token and webhook secret are read from the environment or a file."""

    name: str
    url: str
    token_env: str | None
    token_file: str | None
    webhook_secret_env: str | None
    webhook_secret_file: str | None
    bot_id: int | None = None  # the account of the token, if the token may not ask for it
    bots: tuple[str, ...] = ()  # logins of bots that may start and command work
    labels: Mapping[str, str] = field(default_factory=dict)  # stage ("todo") -> name of the status label


@dataclass(frozen=True)
class Rule:
    """An entry of `repositories` in fleet.toml: how to work on the repositories that fit `name`.

    `clis`, `budget`, `commit` and `hooks` are tables of fleet.toml, as its schema checked them.
    """

    position: int  # in fleet.toml; the first rule that fits applies
    forge: str
    name: str
    cli: str | None
    max_retries: int
    task_timeout_secs: int
    validation: tuple[str, ...]
    enabled: bool = True
    clis: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    commit: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, list[str]] = field(default_factory=dict)
    reviewers: tuple[str, ...] = ()
    flow: str = "branch"  # or "agit": a push to refs/for/

    @property
    def is_pattern(self) -> bool:
        return has_wildcard(self.name)


@dataclass(frozen=True)
class RepositoryRecord:
    """A repository that we have met. `id` survives a rename; `full_name` is empty if it is gone from the forge."""

    forge: str
    id: int
    full_name: str
    clone_url: str
    default_branch: str
    keeps_lfs: bool = False  # a run has seen files in Git LFS


def has_wildcard(name: str) -> bool:
    return bool(set(name) & set("*?["))

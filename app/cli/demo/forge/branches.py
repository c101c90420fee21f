"""Handles changes of branches and tags: sends webhooks, updates pull requests, closes issues."""

from __future__ import annotations

from . import commits, git_commands, issues, pulls, webhook_payloads
from .git_commands import ZERO
from .models import Repository, User
from .store import Store


def moved(store: Store, repo: Repository, doer: User, ref: str, old: str, new: str) -> None:
    """One ref went from old to new (forty zeros: it was not, or is no more). Git has done it already."""
    if old == new or not ref.startswith(("refs/heads/", "refs/tags/")):
        return
    store.touch(repo)
    name = ref.removeprefix("refs/heads/")
    if ref.startswith("refs/tags/") or new != ZERO:
        _pushed(store, repo, doer, ref, old, new, name)
    if new == ZERO:
        store.announce(repo, "delete", webhook_payloads.deleted(store, repo, ref, doer), branch=name)
    if ref.startswith("refs/heads/"):
        pulls_follow(store, repo, doer, name, new)
        if name == repo.default_branch and ZERO not in (old, new):
            _issues_follow(store, repo, doer, old, new)


def _pushed(store: Store, repo: Repository, doer: User, ref: str, old: str, new: str, name: str) -> None:
    if old == ZERO:
        store.announce(repo, "create", webhook_payloads.created(store, repo, ref, new, doer), branch=name)
    store.announce(repo, "push", webhook_payloads.push(store, repo, ref, old, new, doer), branch=name)


def pulls_follow(store: Store, repo: Repository, doer: User, name: str, new: str) -> None:
    for one in repo.open_pulls():
        assert one.pull is not None
        if new == ZERO and name in (one.pull.head, one.pull.base):
            issues.set_state(store, repo, one, doer, "closed")
        elif name == one.pull.head:
            pulls.head_moved(store, repo, one, doer, new)
        elif name == one.pull.base:
            pulls.measure(repo, one.pull)


def _issues_follow(store: Store, repo: Repository, doer: User, old: str, new: str) -> None:
    for one in reversed(commits.between(repo, old, new)):
        issues.close_named(store, repo, doer, one["message"], one["sha"])


def make(store: Store, repo: Repository, doer: User, name: str, sha: str) -> None:
    git_commands.move(repo.path, f"refs/heads/{name}", sha, ZERO)
    moved(store, repo, doer, f"refs/heads/{name}", ZERO, sha)


def remove(store: Store, repo: Repository, doer: User, name: str) -> None:
    old = git_commands.branch(repo.path, name)
    if old:
        git_commands.drop(repo.path, f"refs/heads/{name}")
        moved(store, repo, doer, f"refs/heads/{name}", old, ZERO)


def write_file(
    store: Store, repo: Repository, doer: User, branch: str, files: dict[str, str | None], message: str
) -> str:
    """Commit files straight onto a branch, as the web editor does."""
    old = git_commands.branch(repo.path, branch)
    new = git_commands.write(repo.path, branch, old, files, message, doer.full_name, store.email(doer))
    moved(store, repo, doer, f"refs/heads/{branch}", old or ZERO, new)
    return new

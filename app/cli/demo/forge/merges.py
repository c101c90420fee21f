"""Merges a pull request in the bare repository, and sends the webhooks in Forgejo's order."""

from __future__ import annotations

from collections.abc import Callable

from . import branches, commits, git_commands, issues, repository_json, webhook_payloads
from .models import Issue, Json, Pull, Repository, User
from .store import Store


class MergeRefused(Exception):
    """The merge is refused, with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def merge(store: Store, repo: Repository, one: Issue, doer: User, order: Json) -> str:
    pull = one.pull
    assert pull is not None
    style = STYLES.get(str(order.get("Do", "")))
    _may_merge(one, pull, order)
    if style is None:
        raise MergeRefused(405, "Invalid merge style: it is merge, rebase, rebase-merge, squash or fast-forward-only")
    base = git_commands.branch(repo.path, pull.base) or ""
    try:
        new = style(store, repo, one, doer, base, _message(one, pull, order))
        git_commands.move(repo.path, f"refs/heads/{pull.base}", new, base)
    except git_commands.Refused as conflict:
        raise MergeRefused(409, f"merge conflict: {conflict}") from conflict
    _tell(store, repo, one, doer, base, new)
    if order.get("delete_branch_after_merge"):
        branches.remove(store, repo, doer, pull.head)
    return new


def _may_merge(one: Issue, pull: Pull, order: Json) -> None:
    if pull.merged:
        raise MergeRefused(405, "The PR is already merged")
    if one.state != "open":
        raise MergeRefused(404, "The pull request is closed")
    if repository_json.draft(one.title):
        raise MergeRefused(405, "Work in progress PRs cannot be merged")
    if (order.get("head_commit_id") or pull.head_sha) != pull.head_sha:
        raise MergeRefused(409, "head out of date")


def _message(one: Issue, pull: Pull, order: Json) -> str:
    title = order.get("MergeTitleField") or f"Merge pull request '{one.title}' (#{one.number}) from {pull.head}"
    if order["Do"] == "squash" and not order.get("MergeTitleField"):
        title = f"{one.title} (#{one.number})"
    body = order.get("MergeMessageField") or ""
    return f"{title}\n\n{body}".strip() + "\n"


def _tell(store: Store, repo: Repository, one: Issue, doer: User, old: str, new: str) -> None:
    pull = one.pull
    assert pull is not None
    now = store.touch(repo, one)
    pull.merged, pull.merged_at, pull.merged_by, pull.merge_commit = True, now, doer, new
    one.state, one.closed = "closed", now
    store.note(one, "merge_pull", doer)
    ref = f"refs/heads/{pull.base}"
    store.announce(repo, "push", webhook_payloads.push(store, repo, ref, old, new, doer), branch=pull.base)
    store.announce(repo, "pull_request", webhook_payloads.pull(store, repo, one, "closed", doer))
    messages = [each["message"] for each in commits.between(repo, old, new)]
    if pull.base == repo.default_branch:
        issues.close_named(store, repo, doer, "\n".join([one.title, one.body, *messages]), new)
    branches.pulls_follow(store, repo, doer, pull.base, new)


def _merge(store: Store, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    head = _head(one)
    tree = git_commands.merged_tree(repo.path, base, head)
    return git_commands.commit(repo.path, tree, [base, head], message, doer.full_name, store.email(doer))


def _squash(store: Store, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    tree = git_commands.merged_tree(repo.path, base, _head(one))
    return git_commands.commit(repo.path, tree, [base], message, doer.full_name, store.email(doer))


def _rebase(store: Store, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    tip = base
    if git_commands.is_ancestor(repo.path, base, _head(one)):
        return _head(one)
    for each in reversed(commits.between(repo, base, _head(one))):
        if len(each["parents"].split()) == 1:
            tip = git_commands.replant(repo.path, each["sha"], tip, doer.full_name, store.email(doer))
    return tip


def _rebase_merge(store: Store, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    tip = _rebase(store, repo, one, doer, base, message)
    return git_commands.commit(repo.path, f"{tip}^{{tree}}", [base, tip], message, doer.full_name, store.email(doer))


def _fast_forward(store: Store, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    if not git_commands.is_ancestor(repo.path, base, _head(one)):
        raise MergeRefused(409, "not possible to fast-forward: the branch is behind its base")
    return _head(one)


def _head(one: Issue) -> str:
    assert one.pull is not None
    return one.pull.head_sha


Style = Callable[[Store, Repository, Issue, User, str, str], str]
STYLES: dict[str, Style] = {
    "merge": _merge,
    "squash": _squash,
    "rebase": _rebase,
    "rebase-merge": _rebase_merge,
    "fast-forward-only": _fast_forward,
}

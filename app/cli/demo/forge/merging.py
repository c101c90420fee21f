"""Merges a pull request for real, in the bare repository, and tells the world in Forgejo's order."""

from __future__ import annotations

from collections.abc import Callable

from . import branches, commits, issues, objects, payloads, plumbing
from .state import Issue, Json, Pull, Repository, User
from .world import World


class NotNow(Exception):
    """The merge is not to be had: an HTTP status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def merge(world: World, repo: Repository, one: Issue, doer: User, order: Json) -> str:
    pull = one.pull
    assert pull is not None
    style = STYLES.get(str(order.get("Do", "")))
    _may_merge(one, pull, order)
    if style is None:
        raise NotNow(405, "Invalid merge style: it is merge, rebase, rebase-merge, squash or fast-forward-only")
    base = plumbing.branch(repo.path, pull.base) or ""
    try:
        new = style(world, repo, one, doer, base, _message(one, pull, order))
        plumbing.move(repo.path, f"refs/heads/{pull.base}", new, base)
    except plumbing.Refused as conflict:
        raise NotNow(409, f"merge conflict: {conflict}") from conflict
    _tell(world, repo, one, doer, base, new)
    if order.get("delete_branch_after_merge"):
        branches.remove(world, repo, doer, pull.head)
    return new


def _may_merge(one: Issue, pull: Pull, order: Json) -> None:
    if pull.merged:
        raise NotNow(405, "The PR is already merged")
    if one.state != "open":
        raise NotNow(404, "The pull request is closed")
    if objects.draft(one.title):
        raise NotNow(405, "Work in progress PRs cannot be merged")
    if (order.get("head_commit_id") or pull.head_sha) != pull.head_sha:
        raise NotNow(409, "head out of date")


def _message(one: Issue, pull: Pull, order: Json) -> str:
    title = order.get("MergeTitleField") or f"Merge pull request '{one.title}' (#{one.number}) from {pull.head}"
    if order["Do"] == "squash" and not order.get("MergeTitleField"):
        title = f"{one.title} (#{one.number})"
    body = order.get("MergeMessageField") or ""
    return f"{title}\n\n{body}".strip() + "\n"


def _tell(world: World, repo: Repository, one: Issue, doer: User, old: str, new: str) -> None:
    pull = one.pull
    assert pull is not None
    now = world.touch(repo, one)
    pull.merged, pull.merged_at, pull.merged_by, pull.merge_commit = True, now, doer, new
    one.state, one.closed = "closed", now
    world.note(one, "merge_pull", doer)
    ref = f"refs/heads/{pull.base}"
    world.announce(repo, "push", payloads.push(world, repo, ref, old, new, doer), branch=pull.base)
    world.announce(repo, "pull_request", payloads.pull(world, repo, one, "closed", doer))
    messages = [each["message"] for each in commits.between(repo, old, new)]
    if pull.base == repo.default_branch:
        issues.close_named(world, repo, doer, "\n".join([one.title, one.body, *messages]), new)
    branches.pulls_follow(world, repo, doer, pull.base, new)


def _merge(world: World, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    head = _head(one)
    tree = plumbing.merged_tree(repo.path, base, head)
    return plumbing.commit(repo.path, tree, [base, head], message, doer.full_name, world.email(doer))


def _squash(world: World, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    tree = plumbing.merged_tree(repo.path, base, _head(one))
    return plumbing.commit(repo.path, tree, [base], message, doer.full_name, world.email(doer))


def _rebase(world: World, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    tip = base
    if plumbing.is_ancestor(repo.path, base, _head(one)):
        return _head(one)
    for each in reversed(commits.between(repo, base, _head(one))):
        if len(each["parents"].split()) == 1:
            tip = plumbing.replant(repo.path, each["sha"], tip, doer.full_name, world.email(doer))
    return tip


def _rebase_merge(world: World, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    tip = _rebase(world, repo, one, doer, base, message)
    return plumbing.commit(repo.path, f"{tip}^{{tree}}", [base, tip], message, doer.full_name, world.email(doer))


def _fast_forward(world: World, repo: Repository, one: Issue, doer: User, base: str, message: str) -> str:
    if not plumbing.is_ancestor(repo.path, base, _head(one)):
        raise NotNow(409, "not possible to fast-forward: the branch is behind its base")
    return _head(one)


def _head(one: Issue) -> str:
    assert one.pull is not None
    return one.pull.head_sha


Style = Callable[[World, Repository, Issue, User, str, str], str]
STYLES: dict[str, Style] = {
    "merge": _merge,
    "squash": _squash,
    "rebase": _rebase,
    "rebase-merge": _rebase_merge,
    "fast-forward-only": _fast_forward,
}

"""What follows when a branch or tag appears, moves or goes: deliveries, and what pulls and issues do."""

from __future__ import annotations

from . import commits, issues, payloads, plumbing, pulls
from .plumbing import ZERO
from .state import Repository, User
from .world import World


def moved(world: World, repo: Repository, doer: User, ref: str, old: str, new: str) -> None:
    """One ref went from old to new (forty zeros: it was not, or is no more). Git has done it already."""
    if old == new or not ref.startswith(("refs/heads/", "refs/tags/")):
        return
    world.touch(repo)
    name = ref.removeprefix("refs/heads/")
    if ref.startswith("refs/tags/") or new != ZERO:
        _pushed(world, repo, doer, ref, old, new, name)
    if new == ZERO:
        world.announce(repo, "delete", payloads.deleted(world, repo, ref, doer), branch=name)
    if ref.startswith("refs/heads/"):
        pulls_follow(world, repo, doer, name, new)
        if name == repo.default_branch and ZERO not in (old, new):
            _issues_follow(world, repo, doer, old, new)


def _pushed(world: World, repo: Repository, doer: User, ref: str, old: str, new: str, name: str) -> None:
    if old == ZERO:
        world.announce(repo, "create", payloads.created(world, repo, ref, new, doer), branch=name)
    world.announce(repo, "push", payloads.push(world, repo, ref, old, new, doer), branch=name)


def pulls_follow(world: World, repo: Repository, doer: User, name: str, new: str) -> None:
    for one in repo.open_pulls():
        assert one.pull is not None
        if new == ZERO and name in (one.pull.head, one.pull.base):
            issues.set_state(world, repo, one, doer, "closed")
        elif name == one.pull.head:
            pulls.head_moved(world, repo, one, doer, new)
        elif name == one.pull.base:
            pulls.measure(repo, one.pull)


def _issues_follow(world: World, repo: Repository, doer: User, old: str, new: str) -> None:
    for one in reversed(commits.between(repo, old, new)):
        issues.close_named(world, repo, doer, one["message"], one["sha"])


def make(world: World, repo: Repository, doer: User, name: str, sha: str) -> None:
    plumbing.move(repo.path, f"refs/heads/{name}", sha, ZERO)
    moved(world, repo, doer, f"refs/heads/{name}", ZERO, sha)


def remove(world: World, repo: Repository, doer: User, name: str) -> None:
    old = plumbing.branch(repo.path, name)
    if old:
        plumbing.drop(repo.path, f"refs/heads/{name}")
        moved(world, repo, doer, f"refs/heads/{name}", old, ZERO)


def write_file(
    world: World, repo: Repository, doer: User, branch: str, files: dict[str, str | None], message: str
) -> str:
    """Commit files straight onto a branch, as the web editor does."""
    old = plumbing.branch(repo.path, branch)
    new = plumbing.write(repo.path, branch, old, files, message, doer.full_name, world.email(doer))
    moved(world, repo, doer, f"refs/heads/{branch}", old or ZERO, new)
    return new

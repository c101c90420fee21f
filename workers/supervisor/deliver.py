"""Pushes the commits of a task to its branch."""

from __future__ import annotations

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import BranchMoved, RunEnded
from workers.supervisor.lfs import push_lfs_files
from workers.supervisor.submodules import check_submodules
from workers.supervisor.sync import branch_rewritten

if TYPE_CHECKING:
    from workers.supervisor.worktree import Worktree


def push_branch(tree: Worktree) -> bool:
    """Push commits that the forge lacks, and drop those of this task that the agent dropped.

    Return True if the branch on the forge is at HEAD now. Raises BranchMoved if someone pushed since the last fetch,
    RunEnded if the push failed otherwise.
    """
    head, known = tree.head(), tree.remote_head()
    there = known or f"refs/remotes/origin/{tree.base}"
    if not tree.git("rev-list", "--max-count=1", head, "^" + there):
        if known is None or known == head or not tree.is_pushed(known):
            return known == head
    check_submodules(tree, there, head)
    push_lfs_files(tree)
    force = bool(tree.mirror.push_to and known and not tree.is_ancestor(known, head))
    if force:  # a forced push there has no lease, so fetch as late as possible
        tree.fetch()
        if tree.remote_head() != known:
            raise BranchMoved
    try:
        tree.mirror.push(head, tree.branch, known, force)
    except RunEnded as error:
        if not tree.mirror.is_on_forge(head, tree.branch):
            _explain_failure(tree, head, known, error)
    return True


def _explain_failure(tree: Worktree, head: str, known: str | None, error: RunEnded) -> None:
    """Raise BranchMoved if someone pushed to the branch since the last fetch, else RunEnded."""
    try:
        tree.fetch()
    except RunEnded:
        raise error from None
    theirs = tree.remote_head()
    if theirs == known:
        raise error
    if known and theirs and not tree.is_ancestor(known, theirs):
        raise branch_rewritten(tree, head, theirs)
    raise BranchMoved

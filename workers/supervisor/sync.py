"""Brings a worktree and its branch together with what others pushed and earlier runs left."""

from __future__ import annotations

import os

from workers.supervisor.commit import FLEET_AUTHOR, author_environment, commit_all
from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.files import delete_folder, read_bytes, remove_file
from workers.supervisor.lfs import pull_lfs_files
from workers.supervisor.mirror import link_worktree
from workers.supervisor.salvage import save_commit

if TYPE_CHECKING:
    from workers.supervisor.worktree import Worktree


def resume_branch(tree: Worktree) -> None:
    """Put an existing worktree on its branch, at the forge's commit if nothing here is newer."""
    link_worktree(tree.path, tree.git_dir)
    remove_file(tree.git_dir + "/index.lock")  # of a git that was killed: no other run works here
    return_to_branch(tree)
    ours, theirs, branch = tree.head(), tree.remote_head(), tree.branch_head()
    if read_bytes(tree.git_dir + "/HEAD") != f"ref: refs/heads/{tree.branch}\n".encode():
        if branch and not tree.is_ancestor(branch, ours):
            ours = _restore_branch(tree, branch)
        else:
            tree.git("checkout", "--quiet", "-B", tree.branch)
    if theirs and theirs != ours:
        if tree.is_ancestor(ours, theirs):
            _move_branch(tree, theirs, "merge", "--quiet", "--ff-only")
        elif tree.is_pushed(ours):  # someone has rebased or reset the branch since
            _move_branch(tree, theirs)


def return_to_branch(tree: Worktree) -> None:
    """Leave an earlier commit of the branch that the agent has checked out: looking at it is no change."""
    ours, branch = tree.head(), tree.branch_head()
    if branch and branch != ours and tree.is_ancestor(ours, branch):
        _move_branch(tree, branch)


def _move_branch(tree: Worktree, commit: str, *command: str) -> None:
    """Move the branch to a commit. Uncommitted changes of a killed run stay, or are saved elsewhere if they conflict.

    Otherwise they would stop the next run, too.
    """
    reset = ("checkout", "--quiet", "-B", tree.branch)
    try:
        tree.git(*(command or reset), commit)
    except RunEnded as error:
        before = error.end == "failed" and tree.head()
        if before:
            _commit_leftovers(tree)
        if not before or tree.head() == before:
            raise
        location = save_commit(tree, tree.head())
        tree.warnings.append(f"changes of an earlier run conflicted with {tree.branch}: they are saved as {location}")
        tree.git(*reset, commit)


def _restore_branch(tree: Worktree, branch: str) -> str:
    """Check out the branch after a run that was killed beside it, in a rebase for example. Return its commit.

    The work of that run is saved elsewhere.
    """
    _commit_leftovers(tree)
    location = save_commit(tree, tree.head())
    for name in ("rebase-merge", "rebase-apply", "sequencer"):
        delete_folder(os.path.join(tree.git_dir, name))
    for name in ("CHERRY_PICK_HEAD", "MERGE_HEAD", "REBASE_HEAD", "REVERT_HEAD"):
        remove_file(os.path.join(tree.git_dir, name))
    tree.git("checkout", "--quiet", "--force", "-B", tree.branch, branch)
    tree.warnings.append(f"an earlier run ended with HEAD away from {tree.branch}: its work is saved as {location}")
    return branch


def _commit_leftovers(tree: Worktree) -> None:
    commit_all(tree, f"Work on {tree.task}, left by a run that was ended", FLEET_AUTHOR)


def merge_remote(tree: Worktree, author: tuple[str, str]) -> bool:
    """Merge what someone else pushed to the branch. Return True if there was something.

    Raises RunEnded if it conflicts or the branch was rewritten. The work is saved elsewhere then: nothing that others
    pushed is overwritten, and nothing that they removed is pushed again.
    """
    head, theirs = tree.head(), tree.remote_head()
    if theirs and _restores_removed(tree, head, theirs):
        raise branch_rewritten(tree, head, theirs)
    if not theirs or tree.is_ancestor(theirs, head) or tree.is_ancestor(head, theirs):
        return False
    if tree.is_pushed(theirs):  # a run of this task pushed it, and the agent has amended or rebased it
        return False
    _merge(tree, head, theirs, author)
    pull_lfs_files(tree)
    return True


def _merge(tree: Worktree, head: str, theirs: str, author: tuple[str, str]) -> None:
    words = ("merge", "--quiet", "--no-verify", "-m", f"Merge what others pushed to {tree.branch}")
    try:
        tree.git(*words, theirs, env=author_environment(author))
    except RunEnded as error:
        if error.end != "failed":
            raise
        tree.git("reset", "--quiet", "--merge", head)
        reason = (
            f"someone pushed to {tree.branch}, and that conflicts with this work: merge origin/{tree.branch} into it"
        )
        raise RunEnded("failed", f"{reason}; it is saved as {save_commit(tree, head)}", "branch_moved") from None


def _restores_removed(tree: Worktree, head: str, theirs: str) -> bool:
    """Return True if a commit is based on one that was pushed and that someone has removed from the branch since."""
    return any(tree.is_ancestor(one, head) and not tree.is_ancestor(one, theirs) for one in tree.pushed_commits())


def branch_rewritten(tree: Worktree, head: str, theirs: str) -> RunEnded:
    """Save the work elsewhere, move the branch to the forge's commit for the next run, and return the error."""
    reason = f"someone removed commits from {tree.branch} on the forge that this work is based on"
    error = RunEnded("failed", f"{reason}; it is saved as {save_commit(tree, head)}", "branch_rewritten")
    tree.git("checkout", "--quiet", "--force", "-B", tree.branch, theirs)
    return error

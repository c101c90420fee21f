"""Prepares a task's worktree: fetches, checks out the branch, and adds submodules and large files."""

from __future__ import annotations

import os
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import delete_folder, make_folder, write_if_changed
from workers.supervisor.lfs import pull_lfs_files
from workers.supervisor.mirror import link_worktree
from workers.supervisor.submodules import fetch_submodules
from workers.supervisor.sync import resume_branch
from workers.supervisor.worktree import Worktree

if TYPE_CHECKING:
    from workers.supervisor.worktree import Workspace


def prepare_workspace(workspace: Workspace) -> str | None:
    """Make the folder ready for the agent. Return the commit that it begins from; None without a repository."""
    if not isinstance(workspace, Worktree):
        make_folder(workspace.path)
        return None
    make_folder(os.path.dirname(workspace.mirror.path))
    workspace.fetch()
    if workspace.is_checked_out():
        resume_branch(workspace)
    else:
        _check_out(workspace)
    fetch_submodules(workspace, workspace.files)
    pull_lfs_files(workspace)
    return workspace.head()


def _check_out(tree: Worktree) -> None:
    """Make the worktree, from the spare one if there is one. Start another spare if this took long.

    `git worktree add` would take four processes, each of which reads every other worktree.
    """
    commit = tree.remote_head() or tree.mirror.read_ref(f"refs/remotes/origin/{tree.base}") or ""
    for folder in (tree.path, tree.git_dir):
        delete_folder(folder)
    began, is_spare = time.monotonic(), tree.spare.move_to(tree.path, tree.git_dir)
    make_folder(tree.git_dir)
    make_folder(tree.path)
    write_if_changed(tree.git_dir + "/HEAD", f"{commit}\n".encode())
    link_worktree(tree.path, tree.git_dir)
    tree.git("checkout", "--quiet", "--force", "--no-track", "-B", tree.branch, commit)
    if is_spare or time.monotonic() - began > tree.limits["spare_secs"]:
        tree.spare.make(commit, tree.path)


def finish_workspace(workspace: Workspace) -> None:
    """Wait for the spare worktree of a repository's first task, so that the second finds it."""
    if isinstance(workspace, Worktree) and workspace.is_first:
        workspace.spare.wait()


def collect_garbage(workspace: Workspace) -> None:
    """Let git pack the mirrors, now that the run has its result."""
    if not isinstance(workspace, Worktree):
        return
    workspace.watch.stop_reason = None
    workspace.mirror.collect_garbage()
    for module in workspace.submodules:
        with module.lock as lock:  # no run clones from it meanwhile
            if lock.acquire():
                module.collect_garbage()

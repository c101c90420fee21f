"""Fetches and pushes files that Git LFS keeps."""

from __future__ import annotations

import os

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.files import read_bytes
from workers.supervisor.mirror import worktree_options
from workers.supervisor.programs import is_installed

if TYPE_CHECKING:
    from workers.supervisor.worktree import WorkingCopy, Worktree


def pull_lfs_files(tree: Worktree) -> None:
    if needs_lfs(tree, tree.files):
        _lfs(tree, "pull")


def push_lfs_files(tree: Worktree) -> None:
    """Push large files before the commits that point at them."""
    if needs_lfs(tree, tree.files):
        _lfs(tree, "push", "origin", "HEAD", patience=tree.limits["grace_secs"])


def needs_lfs(tree: Worktree, files: WorkingCopy) -> bool:
    """Return True if .gitattributes name files in Git LFS. Raises RunEnded if git-lfs is not installed.

    The index names every file. It is searched directly, since a git process would take longer.
    """
    if b".gitattributes" not in (read_bytes(files.git_dir + "/index") or b""):
        return False
    names = files.git("ls-files", "-z", "--", ":(glob)**/.gitattributes").split("\0")
    if not any(b"filter=lfs" in (read_bytes(os.path.join(files.path, name)) or b"") for name in names if name):
        return False
    tree.uses_lfs = True
    if not is_installed("git-lfs"):
        reason = "this repository keeps files in Git LFS, and git-lfs is not on this host: install it there"
        raise RunEnded("failed", reason, "lfs_missing")
    return True


def _lfs(tree: Worktree, *words: str, patience: float = 0) -> None:
    tree.mirror.lfs(*words, where=worktree_options(tree.path, tree.git_dir), patience=patience)

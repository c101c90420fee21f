"""Commits what an agent left uncommitted."""

from __future__ import annotations

import os
import re

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import read_bytes

if TYPE_CHECKING:
    from workers.supervisor.worktree import Worktree

FLEET_AUTHOR = ("agent-fleet", "agent-fleet@localhost")


def commit_all(tree: Worktree, message: str, author: tuple[str, str]) -> list[str]:
    """Commit every change but nested repositories. Return their paths.

    Of a nested repository git would keep only the name of a commit that is nowhere else. Commits that the agent made
    stay as they are.
    """
    _unstage_nested(tree)
    dirty = tree.git("status", "--porcelain", "-z", "--untracked-files=all").split("\0")
    nested = [line[3:-1] for line in dirty if line.startswith("?? ") and line.endswith("/")]
    if any(dirty):
        tree.git("add", "--all", "--", ":/", *(f":(top,exclude,literal){path}" for path in nested))
        if tree.git("diff", "--cached", "--name-only"):
            words = ("commit", "--quiet", "--no-verify", "--allow-empty-message", "-m", message)
            tree.git(*words, env=author_environment(author))
    return nested


def author_environment(author: tuple[str, str]) -> dict[str, str]:
    """Return the variables that make git commit as this name and address."""
    name, email = author
    return {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email,
            "GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": email}  # fmt: skip


def _unstage_nested(tree: Worktree) -> None:
    """Unstage nested repositories that the agent added; a submodule is in .gitmodules."""
    there = tree.remote_head() or f"refs/remotes/origin/{tree.base}"
    words = ("diff", "--cached", "--raw", "--no-abbrev", "--no-renames", "-z", there)
    changes = tree.try_git(*words)[1].split("\0")
    links = [path for facts, path in zip(changes[::2], changes[1::2]) if re.match(r":(?!160000)\d+ 160000 ", facts)]
    modules = (read_bytes(tree.path + "/.gitmodules") or b"") if links else b""
    known = re.findall(rb"(?m)^\s*path\s*=\s*(.+?)\s*$", modules)
    nested = [path for path in links if os.fsencode(path) not in known]
    if nested:
        tree.git("update-index", "--force-remove", "--", *nested)

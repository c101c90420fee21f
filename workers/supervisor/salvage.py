"""Deletes a task's folder, and saves work in it that is nowhere else."""

from __future__ import annotations

import os

from workers.supervisor.commit import FLEET_AUTHOR, commit_all
from workers.supervisor.constants import TYPE_CHECKING, WAIT_SECS
from workers.supervisor.errors import RunEnded
from workers.supervisor.files import delete_folder, make_folder, read_bytes
from workers.supervisor.lfs import push_lfs_files
from workers.supervisor.worktree import Worktree

if TYPE_CHECKING:
    from workers.supervisor.worktree import Workspace


def delete_workspace(workspace: Workspace) -> str | None:
    """Delete a task's folder. Return where its work was saved that was nowhere else, None if there was none."""
    tree = workspace if isinstance(workspace, Worktree) else None
    saved = None
    if os.path.lexists(workspace.path):
        if tree and tree.is_checked_out():
            saved = _save_worktree(tree)
        elif os.listdir(workspace.path):
            saved = _save_archive(workspace)
        delete_folder(workspace.path)
    if tree and os.path.exists(tree.mirror.path):
        _delete_refs(tree)
    return saved


def _save_worktree(tree: Worktree) -> str | None:
    nested = commit_all(tree, f"Work on {tree.task}, saved at its release", FLEET_AUTHOR)
    unpushed = [path for path in nested if b"[remote " not in (read_bytes(f"{tree.path}/{path}/.git/config") or b"")]
    head, archive = tree.head(), _save_archive(tree, *unpushed) if unpushed else ""
    is_new = tree.git("rev-list", "--max-count=1", head, "--not", "--remotes=origin")
    return " and ".join(filter(None, [save_commit(tree, head) if is_new else "", archive])) or None


def save_commit(tree: Worktree, commit: str) -> str:
    """Push a commit to `wip/<task>` on the forge, else write a git bundle of HEAD. Return which ref or file it is."""
    try:
        push_lfs_files(tree)
        tree.mirror.push(commit, "wip/" + tree.task)
        return f"refs/heads/wip/{tree.task}"
    except RunEnded:
        location = _new_file(tree, "bundle")
        tree.git("bundle", "create", "--quiet", location, "HEAD", "--not", "--remotes=origin")
        return location


def _save_archive(workspace: Workspace, *names: str) -> str:
    """Pack the whole folder, or these parts of it: a folder without git, or repositories begun within ours."""
    import tarfile

    location = _new_file(workspace, "tar.gz")
    with tarfile.open(location, "w:gz") as archive:
        for name in names or ("",):
            archive.add(os.path.join(workspace.path, name), os.path.join(workspace.task, name))
    return location


def _new_file(workspace: Workspace, kind: str) -> str:
    folder, fence = os.path.join(workspace.run.base, "saved"), workspace.run.name.rpartition(".")[2]
    make_folder(folder)
    location = os.path.join(folder, f"{workspace.instance}-{workspace.task}-{fence}")
    names = (f"{location}{number}.{kind}" for number in ("", *(f".{n}" for n in range(2, 100))))
    return next(name for name in names if not os.path.exists(name))


def _delete_refs(tree: Worktree) -> None:
    """Delete what the mirror holds of the task, and the spare worktree if no task is left."""
    with tree.mirror.lock as lock:
        if tree.watch.acquire(lock, WAIT_SECS):
            delete_folder(tree.git_dir)
            for namespace in ("heads", "pushed"):
                tree.mirror.try_git("update-ref", "-d", f"refs/{namespace}/{tree.branch}")
            tree.spare.delete_if_last()

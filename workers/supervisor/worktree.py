"""Locates a task's folder and its git worktree, and answers questions about its commits."""

from __future__ import annotations

import os

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.files import fleet_folder, folder_name, make_folder, read_bytes
from workers.supervisor.git import Git
from workers.supervisor.mirror import Mirror, is_checked_out, worktree_options
from workers.supervisor.programs import find_program, is_installed, is_trusted
from workers.supervisor.spare import SpareWorktree

if TYPE_CHECKING:
    from typing import Any

    from workers.supervisor.constants import Json
    from workers.supervisor.mirror import BareRepository
    from workers.supervisor.run import Run
    from workers.supervisor.watch import Watch

REPLACEABLE = (
    "{} is run from {}, where any CLI of this user can replace it, and it receives the forge's password: install it"
    " where this user cannot write"
)


def workspace_path(request: Json) -> str:
    return os.path.join(fleet_folder(request), "work", request["instance"], request["task"])


def workspace_lock(request: Json) -> str:
    """Return the path of a lock file beside the folder, under a name that no task can have."""
    folder, task = os.path.split(workspace_path(request))
    make_folder(folder)
    return os.path.join(folder, f".{task}.lock")


class Workspace:
    """The folder in which a task's runs work, one after the other. Without a repository it is a plain folder."""

    def __init__(self, request: Json, run: Run) -> None:
        self.path, self.run = workspace_path(request), run
        self.instance, self.task = request["instance"], request["task"]


class WorkingCopy:
    """Files that git checked out, and the folder where it keeps their HEAD and index; of a task or of a submodule."""

    def __init__(self, mirror: Mirror, path: str, git_dir: str, url: str, env: dict[str, str] | None = None) -> None:
        self.mirror, self.path, self.git_dir, self.url, self.env = mirror, path, git_dir, url, env or {}

    def git(self, *words: str, **how: Any) -> str:
        return self.mirror.git(*words, **self._here(**how))

    def try_git(self, *words: str, **how: Any) -> tuple[int | None, str, str]:
        return self.mirror.try_git(*words, **self._here(**how))

    def _here(self, config: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Json:
        where = (*config, *worktree_options(self.path, self.git_dir))
        return {"where": where, "env": {**self.env, **(env or {})}}


class Worktree(Workspace):
    """The workspace of a task with a repository: a git worktree of its mirror."""

    def __init__(self, request: Json, run: Run, watch: Watch, limits: Json) -> None:
        super().__init__(request, run)
        self.watch, self.limits = watch, limits
        repository: Json = request["repository"]
        self.base, self.branch = repository["base"], repository["branch"]
        self._reported: str | None = repository.get("pushed")
        self.mirror = Mirror(request, Git(request, run, watch, limits))
        self.git_dir = os.path.join(self.mirror.path, "worktrees", folder_name(f"{self.instance}/{self.task}"))
        self.files = WorkingCopy(self.mirror, self.path, self.git_dir, self.mirror.url)
        self.git, self.try_git = self.files.git, self.files.try_git
        self.spare = SpareWorktree(self.mirror, watch, limits)
        self.is_first = False  # of its repository on this host
        self.uses_lfs = False
        self.warnings: list[str] = []
        self.submodules: list[BareRepository] = []

    def fetch(self) -> None:
        """Fetch base and branch from the forge. Raises RunEnded."""
        with self.mirror.lock as lock:
            self.mirror.acquire(lock)
            self.is_first = self.is_first or not os.path.isdir(self.mirror.path + "/objects")
            self.mirror.fetch_branches(self.base, self.branch)

    def is_checked_out(self) -> bool:
        return is_checked_out(self.path, self.git_dir)

    def head(self) -> str:
        """Return the commit at HEAD. Raises RunEnded if there is none."""
        head = (read_bytes(self.git_dir + "/HEAD") or b"").decode("utf-8", "replace").strip()
        commit = self.mirror.read_ref(head[5:]) if head.startswith("ref: ") else head
        if not commit:
            raise RunEnded("failed", f"{self.path} has no commit at its HEAD: inspect it, then release the task")
        return commit

    def branch_head(self) -> str | None:
        """Return the commit of the task's branch on this host."""
        return self.mirror.read_ref(f"refs/heads/{self.branch}")

    def remote_head(self) -> str | None:
        """Return the commit of the task's branch on the forge, as of the last fetch."""
        return self.mirror.read_ref(f"refs/remotes/origin/{self.branch}")

    def is_ancestor(self, commit: str, descendant: str) -> bool:
        return commit == descendant or self.try_git("merge-base", "--is-ancestor", commit, descendant)[0] == 0

    def is_pushed(self, commit: str) -> bool:
        """Return True if a run of this task has pushed the commit to the branch."""
        return any(self.is_ancestor(commit, pushed) for pushed in self.pushed_commits())

    def pushed_commits(self) -> list[str]:
        """Return the newest commits that runs of this task pushed to the branch.

        One is known on this host. The other was reported: another host or an older supervisor pushed it.
        """
        known = {self.mirror.read_ref(f"refs/pushed/{self.branch}"), self._reported}
        return [commit for commit in known if commit]

    def commits_since(self, base: str) -> list[str]:
        """Return the run's own commits, at most 100, without those that others pushed to the branch."""
        others = [f"^{theirs}" for theirs in [self.remote_head()] if theirs]
        return self.git("rev-list", "--reverse", "--max-count=100", f"{base}..{self.head()}", *others).split()

    def untrusted_programs(self) -> list[str]:
        """Return a warning for each program that receives the forge's password and that this user can replace."""
        names = [name for name in ("git", *(["git-lfs"] if self.uses_lfs else [])) if is_installed(name)]
        found = [(name, find_program(name, self.mirror.process.search_path)) for name in names]
        return [
            REPLACEABLE.format(name, os.path.dirname(location))
            for name, location in found
            if os.geteuid() and not is_trusted(location)
        ]


def open_workspace(request: Json, run: Run, watch: Watch, limits: Json) -> Workspace:
    return Worktree(request, run, watch, limits) if request.get("repository") else Workspace(request, run)

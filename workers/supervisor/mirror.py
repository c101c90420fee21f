"""Keeps a bare copy of a repository on this host, which all worktrees of it share."""

from __future__ import annotations

import os
import time

from workers.supervisor.constants import TYPE_CHECKING, WAIT_SECS
from workers.supervisor.errors import RunEnded
from workers.supervisor.files import Lock, fleet_folder, folder_name, make_folder, write_if_changed
from workers.supervisor.programs import is_installed

if TYPE_CHECKING:
    from typing import Any

    from workers.supervisor.constants import Json
    from workers.supervisor.git import Git

MIRROR_CONFIG = b"""[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
\tpushUpdateRejected = false
"""
# The agent's git gets it, too: it commits pointers for these files, as every git with git-lfs does.
LFS_CONFIG = b"""[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
[lfs]
\trepositoryformatversion = 0
"""


class BareRepository:
    """A bare copy of the repository at `url`."""

    def __init__(self, url: str, path: str, process: Git) -> None:
        self.url, self.path, self.process = url, path, process
        self.lock = Lock(path + ".lock")

    def git(self, *words: str, **how: Any) -> str:
        """Run git as `try_git` does. Return its output. Raises RunEnded if it fails."""
        code, out, errors = self.try_git(*words, **how)
        if code:
            lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("hint:")]
            raise RunEnded("failed", f"git {words[0]} failed: " + " | ".join(lines[-4:]))
        return out

    def try_git(
        self,
        *words: str,
        where: tuple[str, ...] = (),
        secret: bool = False,
        patience: float = 0,
        env: dict[str, str] | None = None,
    ) -> tuple[int | None, str, str]:
        """Run git on this repository, or on the worktree that the options `where` name. See Git.run.

        Without `secret` it is isolated like a CLI: a submodule's git folder may have filters that an agent wrote.
        """
        self._repair()
        given = {**self.environment(secret), **(env or {})}
        return self.process.run(
            where or ("--git-dir=" + self.path,), words, self.path, given, isolated=not secret, patience=patience
        )

    def environment(self, secret: bool) -> dict[str, str]:
        return self.process.environment(self.path, secret)

    def _repair(self) -> None:
        """Restore what `git init --bare` makes, whatever an agent wrote since."""
        for folder in ("objects", "refs"):
            make_folder(os.path.join(self.path, folder))
        write_if_changed(self.path + "/HEAD", b"ref: refs/heads/main\n")
        write_if_changed(self.path + "/config", MIRROR_CONFIG + (LFS_CONFIG if is_installed("git-lfs") else b""))
        if os.path.lexists(self.path + "/commondir"):  # it would name another folder with a config of its own
            os.unlink(self.path + "/commondir")

    def acquire(self, lock: Lock) -> None:
        """Wait for this repository's lock. Raises RunEnded if other runs keep it."""
        if not self.process.watch.acquire(lock, self.process.limits["git_secs"]):
            raise RunEnded("failed", f"other runs kept {self.path} busy: start the run again")

    def fetch(self, option: str, *refs: str, **how: Any) -> None:
        words = ("fetch", "--quiet", option, "--prune", "--no-recurse-submodules", "--", self.url, *refs)
        try:
            self.git(*words, secret=True, **how)
        except RunEnded:
            if not self._delete_stale_locks():
                raise
            self.git(*words, secret=True, **how)

    def _delete_stale_locks(self) -> bool:
        """Delete lock files of a git that died with its host: none here lives longer than git_secs."""
        is_found = False
        for folder, _, names in os.walk(self.path):
            for lock in (os.path.join(folder, name) for name in names if name.endswith(".lock")):
                if time.time() - os.path.getmtime(lock) > self.process.limits["git_secs"]:
                    os.unlink(lock)
                    is_found = True
        return is_found

    def collect_garbage(self) -> None:
        settings = ("-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "-c", "gc.bigPackThreshold=256m")
        self.try_git("gc", "--auto", "--quiet", where=(*settings, "--git-dir=" + self.path))

    def lfs(self, *words: str, where: tuple[str, ...], patience: float = 0) -> None:
        """Run git-lfs with the server at this repository's address, unless the repository names another."""
        server = self.url + ("" if self.url.endswith(".git") else ".git") + "/info/lfs"
        settings = {
            "remote.origin.url": self.url,
            f"lfs.{server}.access": "basic",
            f"lfs.{server}.locksverify": "false",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.git("lfs", *words, where=(*options, *where), secret=True, patience=patience)

    def read_ref(self, name: str) -> str | None:
        """Return the commit of a ref; None if there is none. A git process would take longer."""
        try:
            with open(os.path.join(self.path, name)) as file:
                return file.read().strip()
        except OSError:
            pass
        try:
            with open(os.path.join(self.path, "packed-refs")) as file:
                return next((line[:-1].split(" ")[0] for line in file if line.endswith(f" {name}\n")), None)
        except OSError:
            return None


class Mirror(BareRepository):
    """The bare copy of the task's repository."""

    def __init__(self, request: Json, process: Git) -> None:
        repository: Json = request["repository"]
        url: str = repository["url"]
        super().__init__(url, os.path.join(fleet_folder(request), "mirrors", folder_name(url) + ".git"), process)
        self.push_to: str = repository.get("push_to") or ""  # a refspec of the forge's own instead of a branch
        self._push_options: list[str] = repository.get("push_options") or []
        self._fetch_from: str = repository.get("fetch_from") or ""

    def fetch_branches(self, base: str, branch: str) -> None:
        """Fetch the base, and the task's branch if the forge has it, in one git process and one connection.

        Naming a branch that does not exist fails, so a star follows it. Longer names that match do no harm.
        """
        refs = [f"+refs/heads/{name}:refs/remotes/origin/{name}" for name in (base, branch + "*")]
        if self._fetch_from:
            refs[1] = f"+{self._fetch_from}:refs/remotes/origin/{branch}"
        self.fetch("--no-tags", *refs)

    def push(self, sha: str, branch: str, known: str | None = None, force: bool = False) -> None:
        """Push a commit to a branch, if that is at `known`, or does not exist if None. Raises RunEnded.

        A push to `refs/for/` must be a fast-forward unless `force`. Branches below `wip/` are overwritten. After a
        cancel the push has a grace: nobody knows whether a push that was cut short has arrived.
        """
        is_wip, grace = branch.startswith("wip/"), self.process.limits["grace_secs"]
        if self.push_to and not is_wip:
            target = self.push_to
            options = [f"--push-option={one}" for one in (*self._push_options, *(["force-push=true"] if force else []))]
        else:
            target = f"refs/heads/{branch}"
            options = [] if is_wip else [f"--force-with-lease={target}:{known or ''}"]
        words = ("push", "--quiet", "--no-verify", "--recurse-submodules=no", *options, "--", self.url)
        self.git(*words, f"{sha}:{target}", secret=True, patience=grace)
        for namespace in ("remotes/origin",) if is_wip else ("remotes/origin", "pushed"):
            self.git("update-ref", f"refs/{namespace}/{branch}", sha, patience=grace + WAIT_SECS)

    def is_on_forge(self, sha: str, branch: str) -> bool:
        """Ask the forge for a commit after a push that did not end well."""
        words = ("ls-remote", "--", self.url, "refs/pull/*/head" if self.push_to else f"refs/heads/{branch}")
        code, answer, _ = self.try_git(*words, secret=True, patience=self.process.limits["grace_secs"] + WAIT_SECS)
        return code == 0 and any(line.startswith(sha) for line in answer.splitlines())


def worktree_options(path: str, git_dir: str) -> tuple[str, ...]:
    """Return the options with which git works in a worktree, or in a submodule's."""
    return ("-C", path, "--git-dir=" + git_dir, "--work-tree=" + path)


def link_worktree(path: str, git_dir: str) -> None:
    """Make a worktree and its folder in the mirror point at each other, whatever an agent wrote there."""
    write_if_changed(git_dir + "/commondir", b"../..\n")
    write_if_changed(git_dir + "/gitdir", os.fsencode(path) + b"/.git\n")
    write_if_changed(path + "/.git", b"gitdir: " + os.fsencode(git_dir) + b"\n")


def is_checked_out(path: str, git_dir: str) -> bool:
    """Return True if a checkout was completed: git writes the index last."""
    return os.path.exists(git_dir + "/index") and os.path.isdir(path)

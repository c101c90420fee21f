"""Checks out submodules from mirrors of their repositories, and refuses to deliver changes to them."""

from __future__ import annotations

import os
import re

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.files import folder_name, make_folder, read_bytes, write_if_changed
from workers.supervisor.lfs import needs_lfs
from workers.supervisor.mirror import LFS_CONFIG, BareRepository
from workers.supervisor.worktree import WorkingCopy

if TYPE_CHECKING:
    from workers.supervisor.mirror import Mirror
    from workers.supervisor.worktree import Worktree


class SubmoduleMirror(BareRepository):
    """The bare copy of a submodule's repository, from which all worktrees on this host clone it."""

    def __init__(self, mirror: Mirror, base: str, url: str) -> None:
        super().__init__(url, os.path.join(base, "modules", folder_name(url) + ".git"), mirror.process)
        # As git itself has it for submodules: no path on this host, unless the repository's own address is one.
        self._allow = ("-c", "protocol.file.allow=" + ("always" if mirror.url.startswith("file:") else "user"))

    def environment(self, secret: bool) -> dict[str, str]:
        """Leave out the password if the address names a user: an older git then asks as if for another host."""
        return super().environment(secret and not re.match(r"https?://[^/]*[@%]", self.url, re.IGNORECASE))

    def fetch_commit(self, commit: str) -> None:
        """Fetch a commit that is not here yet. One that no branch contains is asked for by name."""
        for refs in (("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"), (f"{commit}:refs/kept/{commit}",)):
            if self.try_git("cat-file", "-e", commit + "^{commit}")[0]:
                where, env = (*self._allow, "--git-dir=" + self.path), {"GIT_PROTOCOL_FROM_USER": "0"}
                self.fetch("--no-auto-gc", *refs, where=where, env=env)

    def config(self, name: str) -> tuple[str, ...]:
        """Return options by which git clones the submodule from here and records its own forge in it."""
        settings = {"protocol.file.allow": "always", f"url.{self.path}.insteadOf": self.url,
                    f"submodule.{name}.url": self.url, f"submodule.{name}.update": "checkout"}  # fmt: skip
        return tuple(word for key, value in settings.items() for word in ("-c", f"{key}={value}"))


def fetch_submodules(tree: Worktree, files: WorkingCopy) -> None:
    """Check out the submodules of a working copy, and theirs, in the git folders where git itself puts them.

    Only fetches into mirrors get the password: an agent may have written to the git folders.
    """
    if not os.path.exists(files.path + "/.gitmodules"):
        return
    named = _read_gitmodules(files)
    commits = _submodule_commits(files, [its["path"] for its in named.values() if its.get("path")])
    for name, its in named.items():
        commit = commits.get(its.get("path", ""))
        if commit and its.get("url") and its.get("update") != "none":
            is_relative = its["url"].startswith(("./", "../"))
            url = resolve_url(files.url, its["url"]) if is_relative else its["url"]
            git_dir = os.path.join(files.git_dir, "modules", name)
            path, env = os.path.join(files.path, its["path"]), {"GIT_COMMON_DIR": git_dir}
            inner = WorkingCopy(files.mirror, path, git_dir, url, env)
            _fetch_submodule(tree, files, inner, name, its["path"], commit)


def _read_gitmodules(files: WorkingCopy) -> dict[str, dict[str, str]]:
    """Return path, url and update of each submodule by its name."""
    keys = r"^submodule\..*\.(path|url|update)$"
    code, output, _ = files.try_git("config", "-z", "--file", files.path + "/.gitmodules", "--get-regexp", keys)
    named: dict[str, dict[str, str]] = {}
    for key, _, value in (line.partition("\n") for line in output.split("\0") if line and not code):
        named.setdefault(key[len("submodule.") : key.rindex(".")], {})[key.rpartition(".")[2]] = value
    return named


def _submodule_commits(files: WorkingCopy, paths: list[str]) -> dict[str, str]:
    """Return the commit at which the index has each submodule."""
    specs = [f":(top,literal){path}" for path in paths]
    links = files.git("ls-files", "-s", "-z", "--", *specs).split("\0") if specs else []
    return {line.partition("\t")[2]: line.split()[1] for line in links if line.startswith("160000 ")}


def _fetch_submodule(tree: Worktree, outer: WorkingCopy, inner: WorkingCopy, name: str, path: str, commit: str) -> None:
    mirror = SubmoduleMirror(tree.mirror, tree.run.base, inner.url)
    make_folder(os.path.dirname(mirror.path))
    tree.submodules.append(mirror)
    with mirror.lock as lock:
        mirror.acquire(lock)
        mirror.fetch_commit(commit)
        outer.git("submodule", "--quiet", "update", "--init", "--", path, config=mirror.config(name))
    if needs_lfs(tree, inner):
        _fetch_lfs_files(mirror, inner, commit)
    fetch_submodules(tree, inner)


def _fetch_lfs_files(mirror: SubmoduleMirror, files: WorkingCopy, commit: str) -> None:
    mirror.lfs("fetch", "origin", commit, where=("--git-dir=" + mirror.path,))
    config = read_bytes(files.git_dir + "/config") or b""
    if b'[filter "lfs"]' not in config:
        storage = b"\tstorage = %s/lfs\n" % os.fsencode(mirror.path)
        write_if_changed(files.git_dir + "/config", config + LFS_CONFIG + storage)
    files.git("lfs", "checkout")


def resolve_url(url: str, relative: str) -> str:
    """Resolve `../lib.git` against a repository's address as git does, also for `host:team/app`."""
    url = url.rstrip("/")
    while relative.startswith(("./", "../")):
        step, _, relative = relative.partition("/")
        if step == "..":
            url = url[: max(url.rfind("/"), url.rfind(":") + 1)]
    return (url if url.endswith(":") else url + "/") + relative.rstrip("/")


def check_submodules(tree: Worktree, there: str, head: str) -> None:
    """Raise RunEnded if a commit needs work in a submodule that is on this host alone: one repository is pushed."""
    if not os.path.exists(tree.path + "/.gitmodules"):
        return
    dirty = tree.git("status", "--porcelain", "--ignore-submodules=untracked").splitlines()
    lost = [line[3:] for line in dirty if not line.startswith("??")]
    for line in tree.git("diff", "--raw", "--no-abbrev", "--no-renames", there, head).splitlines():
        facts, _, path = line.partition("\t")  # ":160000 160000 <sha> <sha> M" of a submodule at another commit
        if facts.split()[1] == "160000" and not _is_fetched(tree, facts.split()[3]):
            lost.append(path)
    if lost:
        reason = (
            f"the agent changed the submodule {lost[0]}, which is not pushed from here: make a task for its repository"
        )
        raise RunEnded("failed", reason, "submodule_changed")


def _is_fetched(tree: Worktree, sha: str) -> bool:
    """Return True if a submodule has the commit from its own forge."""
    script = f"git for-each-ref --count=1 --contains={sha} refs/remotes 2>/dev/null || :"
    return bool(tree.mirror.git("submodule", "--quiet", "foreach", script, where=("-C", tree.path)))

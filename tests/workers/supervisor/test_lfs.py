"""Files in Git LFS are fetched and pushed with the real git-lfs, from a forge that asks for the password."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest

from app.cli.demo.forge import FakeForge
from tests import find_git_lfs
from tests.workers.supervisor.host import (
    ENVIRONMENT,
    Host,
    Json,
    git,
)


class TestLargeFiles:
    @pytest.fixture
    def forge(self, forge: FakeForge, host: Host) -> FakeForge:
        self.token = forge.add_user("fleet")
        forge.add_repository("acme/art", private=True)
        forge.collaborate("acme/art", "fleet", "write")
        url = forge.clone_url("acme/art", self.token)
        seed, lfs = host.place / "art", {**ENVIRONMENT, "HOME": str(host.place), "PATH": self.path()}
        for argv in (["clone", "-q", url, str(seed)], ["-C", str(seed), "lfs", "install", "--local"],
                     ["-C", str(seed), "lfs", "track", "*.bin"]):  # fmt: skip
            subprocess.run(["git", *argv], check=True, env=lfs, capture_output=True)
        (seed / "a.bin").write_bytes(b"large\0" * 100)
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        for argv in (["add", "--all"], [*who, "commit", "-qm", "art"], ["push", "-q", "origin", "HEAD:main"]):
            subprocess.run(["git", "-C", str(seed), *argv], check=True, env=lfs, capture_output=True)
        return forge

    def path(self) -> str:
        return f"{find_git_lfs.folder()}:{os.environ['PATH']}"

    def result(self, host: Host, forge: FakeForge, script: str, path: str, fence: int = 1, name: str = "art") -> Json:
        delivery = {"message": "Draw", "author_name": "Fleet", "author_email": "fleet@example.org"}
        credentials = {"username": "fleet", "password": self.token}
        repository = {"url": f"{forge.url}/acme/{name}.git", "base": "main", "branch": "task/12"}
        given = {"repository": repository, "delivery": delivery, "credentials": credentials, "path": path}
        host.start(script, fence=fence, **given)
        return host.result(f"t-12.{fence}")

    def test_are_complete_for_the_agent_and_pushed_as_pointers(self, host: Host, forge: FakeForge) -> None:
        draw = "wc -c < a.bin; cp a.bin b.bin; echo more >> b.bin; git add b.bin; git -c user.name=A -c user.email=a@b commit -qm b; echo c > c.bin"
        result = self.result(host, forge, draw, self.path())
        assert result["pushed"], result
        assert host.log() == "600\n"
        art = forge.repository("acme/art").path
        for name, content in (("b.bin", b"large\0" * 100 + b"more\n"), ("c.bin", b"c\n")):
            pointer = git("--git-dir", str(art), "show", f"task/12:{name}")
            assert pointer.startswith("version https://git-lfs.github.com/spec/v1"), "never the content itself"
            assert (art / "lfs" / hashlib.sha256(content).hexdigest()).read_bytes() == content
        again = self.result(host, forge, "cat c.bin; git status --short", self.path(), fence=2)
        assert again["end"] == "finished" and host.log(run="t-12.2") == "c\n"

    def book(self, host: Host, forge: FakeForge, address: str) -> None:
        """Add a private repository that has the other as its submodule."""
        forge.add_repository("acme/book", private=True)
        forge.collaborate("acme/book", "fleet", "write")
        seed, drawn = host.place / "book", git("-C", str(host.place / "art"), "rev-parse", "HEAD")
        git("clone", "-q", forge.clone_url("acme/book", self.token), str(seed))
        (seed / ".gitmodules").write_text(f'[submodule "art"]\n\tpath = art\n\turl = {address}\n')
        git("-C", str(seed), "add", ".gitmodules")
        git("-C", str(seed), "update-index", "--add", "--cacheinfo", f"160000,{drawn},art")
        git("-C", str(seed), "commit", "-qm", "book")
        git("-C", str(seed), "push", "-q", "origin", "HEAD:main")

    def test_in_a_submodule_are_complete_and_fetched_once(self, host: Host, forge: FakeForge) -> None:
        self.book(host, forge, "../art.git")
        inspect = "wc -c < art/a.bin; git status --short; git -C art status --short; git -C art remote get-url origin; echo x > x"
        result = self.result(host, forge, inspect, self.path(), name="book")
        assert result["pushed"] and result["lfs"], result
        assert host.log() == f"600\n{forge.url}/acme/art.git\n"
        repository = {"url": f"{forge.url}/acme/book.git", "base": "main", "branch": "task/12"}
        host.ask("release", run="t-12.1", task="t-12", worktree=True, repository=repository, path=self.path())
        forge.repository("acme/art").path.rename(host.place / "away.git")
        assert self.result(host, forge, inspect, self.path(), fence=2, name="book")["end"] == "finished"
        assert host.log(run="t-12.2").startswith("600\n")

    def test_a_submodule_at_a_path_of_the_host_is_refused(self, host: Host, forge: FakeForge) -> None:
        self.book(host, forge, str(host.place / "art"))
        result = self.result(host, forge, "true", self.path(), name="book")
        assert (result["end"], result["step"]) == ("failed", "prepare") and "not allowed" in result["reason"]

    def test_on_a_host_without_git_lfs_end_the_run_with_a_reason(self, host: Host, forge: FakeForge) -> None:
        bare = host.place / "bare"
        bare.mkdir()
        for name in ("git", "sh", "dd"):
            (bare / name).symlink_to(shutil.which(name) or "")
        result = self.result(host, forge, "true", str(bare))
        assert (result["end"], result["step"], result["failure"]) == ("failed", "prepare", "lfs_missing")
        assert "install it there" in result["reason"] and not result["pushed"]

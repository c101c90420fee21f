"""Submodules are there for the agent, and changes to them are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workers.supervisor.host import (
    Host,
    Json,
    commit,
    git,
)
from workers.supervisor.submodules import resolve_url


class TestSubmodules:
    @pytest.fixture(params=["absolute", "relative"])
    def lib(self, host: Host, request: pytest.FixtureRequest) -> Path:
        """The module's own repository, beside the forge's; its address in .gitmodules is absolute, or `../lib.git`."""
        host.make_forge()
        seed, lib = host.place / "seed", host.forge.parent / "lib.git"
        git("init", "--quiet", "--initial-branch=main", str(lib))
        (lib / "lib.txt").write_text("of the module\n")
        commit(lib, "lib")
        git("-C", str(seed), "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{lib}", "lib")
        if request.param == "relative":
            git("-C", str(seed), "config", "--file", ".gitmodules", "submodule.lib.url", "../lib.git")
        commit(seed, "with a module")
        git("-C", str(seed), "push", "--quiet", f"file://{host.forge}", "main")
        return lib

    def test_are_there_when_the_agent_begins(self, host: Host, lib: Path) -> None:
        assert lib.exists()
        assert host.finish("cp lib/lib.txt copy.txt")["pushed"]
        assert host.forge_git("show", "task/12-fix:copy.txt") == "of the module"
        assert host.finish("cat lib/lib.txt > again.txt; echo built > lib/build.log", fence=2)["pushed"]

    def test_are_optional(self, host: Host) -> None:
        host.make_forge()
        (host.place / "seed" / ".gitmodules").touch()
        commit(host.place / "seed", "without any")
        git("-C", str(host.place / "seed"), "push", "--quiet", f"file://{host.forge}", "main")
        assert host.finish("echo x > x")["pushed"]

    def test_are_fetched_despite_locks_of_a_killed_git(self, host: Host, lib: Path) -> None:
        host.finish("cat lib/lib.txt > one")
        (module,) = host.home.glob("modules/*.git")
        lock = module / "refs" / "heads" / "main.lock"
        lock.touch()
        os.utime(lock, (0, 0))
        self.move_on(host, lib, "newer")
        self.next_task(host, "cat lib/lib.txt; echo x > x")
        assert host.log(run="t-13.1") == "newer\n"

    def move_on(self, host: Host, lib: Path, text: str) -> None:
        (lib / "lib.txt").write_text(text + "\n")
        commit(lib, text)
        seed, newer = host.place / "seed", git("-C", str(lib), "rev-parse", "HEAD")
        git("-C", str(seed), "update-index", "--cacheinfo", f"160000,{newer},lib")
        git("-C", str(seed), "commit", "--quiet", "-m", f"{text} lib")
        git("-C", str(seed), "push", "--quiet", f"file://{host.forge}", "main")

    def next_task(self, host: Host, script: str) -> Json:
        own = {"run": "t-13.1", "task": "t-13", "repository": host.repository(branch="task/13")}
        return host.finish(script, **own)

    def test_come_from_this_host_for_the_next_task(self, host: Host, lib: Path) -> None:
        host.finish("cat lib/lib.txt > one")
        away = lib.rename(lib.with_name("away.git"))
        assert self.next_task(host, "cat lib/lib.txt; git -C lib remote get-url origin; echo x > x")["pushed"]
        said = host.log(run="t-13.1")
        assert said == f"of the module\nfile://{lib}\n", "the module's own forge is its origin, not a folder of ours"
        assert away.exists()

    def test_are_fetched_again_at_a_new_commit(self, host: Host, lib: Path) -> None:
        host.finish("cat lib/lib.txt > one")
        self.move_on(host, lib, "newer")
        git("-C", str(lib), "reset", "--quiet", "--hard", "HEAD~1")
        self.next_task(host, "cat lib/lib.txt; echo x > x")
        assert host.log(run="t-13.1") == "newer\n", "also a commit that no branch has any more"

    def test_of_submodules_are_there(self, host: Host, lib: Path) -> None:
        deep, seed = lib.with_name("deep"), host.place / "seed"
        git("init", "--quiet", "--initial-branch=main", str(deep))
        (deep / "deep.txt").write_text("deep\n")
        commit(deep, "deep")
        git(
            "-C",
            str(lib),
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            f"file://{deep}",
            "in/deep",
        )
        git("-C", str(lib), "config", "--file", ".gitmodules", "submodule.in/deep.url", "../deep")
        commit(lib, "deeper")
        git("-C", str(seed / "lib"), "-c", "protocol.file.allow=always", "pull", "--quiet", f"file://{lib}", "main")
        commit(seed, "deeper")
        git("-C", str(seed), "push", "--quiet", "--recurse-submodules=no", f"file://{host.forge}", "main")
        assert host.finish("cat lib/in/deep/deep.txt > copy.txt")["pushed"]
        deep.rename(deep.with_name("gone"))
        assert self.next_task(host, "cat lib/in/deep/deep.txt > copy.txt")["pushed"]

    def test_at_a_commit_that_others_pushed_are_delivered(self, host: Host, lib: Path) -> None:
        (lib / "lib.txt").write_text("newer\n")
        commit(lib, "newer")
        script = "cd lib && git -c protocol.file.allow=always fetch --quiet origin && git checkout --quiet origin/main"
        assert host.finish(script)["pushed"]
        assert host.forge_git("rev-parse", "task/12-fix:lib") == git("-C", str(lib), "rev-parse", "main").strip()

    @pytest.mark.parametrize(
        "more", ["", " && git add . && git -c user.name=a -c user.email=a@b commit --quiet -m mine"]
    )
    def test_that_the_agent_changed_are_not_delivered(self, host: Host, lib: Path, more: str) -> None:
        assert lib.exists()
        host.start_delivery(f"echo mine > new.txt; cd lib && echo mine > lib.txt{more}")
        result = host.result()
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "submodule_changed", False)
        assert "submodule lib" in result["reason"]


@pytest.mark.parametrize(
    ("url", "relative", "found"),
    [("https://forge/team/app.git", "../lib.git", "https://forge/team/lib.git"), ("https://forge/a/b/", "../../c/d/", "https://forge/c/d"),
     ("https://forge/a/b", "./c", "https://forge/a/b/c"), ("git@forge:team/app", "../lib", "git@forge:team/lib"),
     ("git@forge:app", "../lib", "git@forge:lib"), ("/srv/app.git", ".././lib", "/srv/lib")],
)  # fmt: skip
def test_a_relative_address_is_resolved_as_git_does(url: str, relative: str, found: str) -> None:
    assert resolve_url(url, relative) == found

"""A repository within the worktree is left out of the delivery."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.workers.supervisor.host import (
    Host,
)


class TestANestedRepository:
    """Made by a `git clone` or `git init` of the agent."""

    CLONE = "git clone --quiet . vendor/lib 2>&1; echo mine > mine"
    EMPTY = "git init --quiet vendor/lib; echo mine > mine"
    ADD = "git -c advice.addEmbeddedRepo=false add --all"
    COMMIT = "git -c user.name=a -c user.email=a@b commit --quiet -m mine"

    @pytest.mark.parametrize("more", ["", f"; {ADD}", f"; {ADD}; {COMMIT}"])
    def test_is_left_out_with_a_warning(self, host: Host, more: str) -> None:
        result = host.finish(self.CLONE + more)
        assert result["pushed"]
        assert host.forge_git("ls-tree", "-r", "--name-only", "task/12-fix").split() == ["README", "mine"]
        (said,) = result["warnings"]
        assert said.startswith("vendor/lib was left out: it is a git repository of its own")
        assert (host.worktree / "vendor" / "lib" / "README").exists(), "the agent may need it again"
        assert host.finish("echo more > mine", fence=2)["pushed"]

    def test_without_a_commit_is_left_out(self, host: Host) -> None:
        result = host.finish(self.EMPTY)
        assert result["pushed"] and len(result["warnings"]) == 1

    def test_alone_is_no_change(self, host: Host) -> None:
        result = host.finish("git clone --quiet . lib")
        assert (result["changed"], result["pushed"], len(result["warnings"])) == (False, False, 1)

    def test_without_a_remote_is_saved_at_the_release(self, host: Host) -> None:
        host.finish("git clone --quiet . lib; git init --quiet own; echo work > own/work")
        wish = {"run": "t-12.1", "task": "t-12", "worktree": True, "repository": host.repository()}
        saved = Path(host.ask("release", **wish)["saved"])
        with tarfile.open(saved) as pack:
            assert "t-12/own/work" in pack.getnames() and "t-12/lib/README" not in pack.getnames()

    def test_with_a_strange_name_is_left_out_alone(self, host: Host) -> None:
        result = host.finish(
            "git clone --quiet . '*'; echo x > x; git init --quiet 'a b'; echo y > 'a b/y'; echo z > z"
        )
        assert len(result["warnings"]) == 2
        assert host.forge_git("ls-tree", "-r", "--name-only", "task/12-fix").split() == ["README", "x", "z"]

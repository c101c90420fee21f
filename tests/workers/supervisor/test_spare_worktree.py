"""A large repository has a worktree ready for its next task."""

from __future__ import annotations

from tests.workers.supervisor.host import (
    Host,
    Json,
    push_by_other,
)


class TestALargeRepository:
    """Its checkout takes longer than `spare_secs`; here every checkout does."""

    def deliver(self, host: Host, number: int, script: str = "echo new > new") -> Json:
        own = {"run": f"t-{number}.1", "task": f"t-{number}", "repository": host.repository(branch=f"task/{number}")}
        host.start_delivery(script, limits={"spare_secs": 0.00001}, **own)
        result = host.result(f"t-{number}.1")
        assert result["pushed"], result
        return result

    def test_has_a_worktree_ready_for_its_next_task(self, host: Host) -> None:
        host.make_forge()
        self.deliver(host, 1)
        (spare,) = host.home.glob("mirrors/*.spare")
        ready = (spare / "README").stat().st_ino
        push_by_other(host, "main", "theirs", start="main")
        result = self.deliver(host, 2, "cat README theirs; echo two > README")
        assert host.log(run="t-2.1") == "hello\ntheirs" and len(result["commits"]) == 1
        assert (host.home / "work" / "i1" / "t-2" / "README").stat().st_ino == ready, "the spare became the worktree"
        assert host.forge_git("show", "task/2:README") == "two" and host.forge_git("show", "task/2:theirs") == "theirs"
        assert host.forge_git("diff", "--name-only", "main", "task/2") == "README"

    def test_has_no_spare_after_its_last_task(self, host: Host) -> None:
        host.make_forge()
        self.deliver(host, 1)
        wish = {"run": "t-1.1", "task": "t-1", "worktree": True, "repository": host.repository(branch="task/1")}
        host.ask("release", **wish)
        assert list(host.home.glob("mirrors/*.spare")) == [] and list(host.mirror().glob("worktrees/*")) == []

    def test_has_an_incomplete_spare_made_again(self, host: Host) -> None:
        host.make_forge()
        self.deliver(host, 1)
        (spare,) = host.home.glob("mirrors/*.spare")
        (host.mirror() / "worktrees" / "spare" / "index").unlink()
        (spare / "README").write_text("half")
        self.deliver(host, 2, "cat README; echo two > two")
        assert host.log(run="t-2.1") == "hello\n" and host.forge_git("diff", "--name-only", "main", "task/2") == "two"

"""What becomes of a push when somebody else pushes to the task's branch meanwhile, from a clone of their own."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workers.supervisor.test_supervisor import Host, Json, commit, eventually, git, push_by_somebody

BRANCH = "task/12-fix"
WAIT = "until [ -e go ]; do sleep 0.02; done; rm go"
MINE = "git add --all; git -c user.name=a -c user.email=a@b commit --quiet"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.clear()


def meanwhile(host: Host, script: str, theirs: Callable[[], None], fence: int = 1, **how: object) -> Json:
    """The result of a run while whose agent works somebody else does something."""
    run = host.on_forge(f"{script}; {WAIT}", fence=fence, **how)["run"]
    host.working(run)
    theirs()
    (host.worktree / "go").touch()
    return host.result(run)


def subjects(host: Host, branch: str = BRANCH) -> list[str]:
    return host.forge_git("log", "--format=%s", branch).splitlines()


def force(host: Host, commit: str) -> None:
    host.forge_git("update-ref", f"refs/heads/{BRANCH}", commit)


class TestSomebodyPushedMeanwhile:
    @pytest.mark.parametrize("is_new", [True, False])
    def test_and_both_works_are_on_the_branch_checked_together(self, host: Host, is_new: bool) -> None:
        if not is_new:
            host.finished("echo one > one")
        fence, start = (1, "main") if is_new else (2, BRANCH)

        def theirs() -> None:
            push_by_somebody(host, BRANCH, "theirs", start)

        result = meanwhile(host, "echo two > two", theirs, fence, validation=["ls"])
        assert result["pushed"] and result["end"] == "finished", result
        assert result["head"] == host.forge_git("rev-parse", BRANCH)
        assert {"two", "theirs"} <= set(host.forge_git("ls-tree", "--name-only", BRANCH).split())
        own = host.forge_git("log", "--no-walk=unsorted", "--format=%s", *reversed(result["commits"]))
        assert own.splitlines() == [f"Merge what others pushed to {BRANCH}", "Fix it"]
        assert ["theirs" in check["tail"] for check in result["validation"]] == [False, True]

    def test_what_conflicts_overwrites_nothing_and_loses_nothing(self, host: Host) -> None:
        result = meanwhile(host, "echo mine > theirs", lambda: push_by_somebody(host, BRANCH, "theirs", "main"))
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "branch_moved", False)
        assert "merge origin/task/12-fix into it; it is saved as refs/heads/wip/t-12" in result["reason"]
        assert host.forge_git("show", f"{BRANCH}:theirs") == "theirs"
        assert host.forge_git("show", "wip/t-12:theirs") == "mine"
        merge = f"cat theirs; git -c user.name=a -c user.email=a@b merge --quiet origin/{BRANCH}; echo both > theirs; {MINE} -m both"
        assert host.finished(merge, fence=2)["pushed"], "the next attempt can do as it was told"
        assert host.said(run="t-12.2").startswith("mine\n") and host.forge_git("show", f"{BRANCH}:theirs") == "both"

    def test_and_pushes_again_while_we_do(self, host: Host) -> None:
        host.make_forge()
        push_by_somebody(host, "later", "later", "main")
        later, hook = host.forge_git("rev-parse", "later"), host.forge / "hooks" / "pre-receive"
        hook.write_text(f"#!/bin/sh\nrm $0\nenv -u GIT_QUARANTINE_PATH git update-ref refs/heads/{BRANCH} {later}\n")
        hook.chmod(0o755)
        result = host.finished("echo mine > mine")
        assert result["pushed"] and {"mine", "later"} <= set(host.forge_git("ls-tree", "--name-only", BRANCH).split())

    def test_what_was_taken_back_from_the_branch_is_not_put_there_again(self, host: Host) -> None:
        host.finished("echo one > one")
        before = host.forge_git("rev-parse", "main")
        result = meanwhile(host, "echo two > two", lambda: force(host, before), fence=2)
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "branch_rewritten", False)
        assert host.forge_git("rev-parse", BRANCH) == before
        assert host.forge_git("show", "wip/t-12:two") == "two"
        assert host.finished("ls; echo three > three", fence=3)["pushed"], "the next one begins with what is there"
        assert host.said(run="t-12.3") == "README\n" and subjects(host) == ["Fix it", "first"]

    def test_nor_is_it_by_work_that_an_earlier_run_left_on_top_of_it(self, host: Host) -> None:
        host.finished("echo one > one")
        host.on_forge(f"echo two > two; {MINE} -m two; exit 1", fence=2)
        host.result("t-12.2")
        push_by_somebody(host, "newer", "theirs", "main")
        force(host, host.forge_git("rev-parse", "newer"))
        host.on_forge("true", fence=3)
        result = host.result("t-12.3")
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "branch_rewritten", False)
        assert subjects(host) == ["somebody's theirs", "first"]
        assert host.forge_git("show", "wip/t-12:two") == "two"
        assert host.finished("ls; echo three > three", fence=4)["pushed"]
        assert host.said(run="t-12.4") == "README\ntheirs\n"
        assert subjects(host) == ["Fix it", "somebody's theirs", "first"]


class TestWhatAKilledRunLeft:
    """Uncommitted, where somebody pushed to the same files before the next run."""

    def killed(self, host: Host, script: str) -> None:
        host.finished("echo one > one")
        host.on_forge(f"{script}; touch .left; sleep 60", fence=2)
        eventually((host.worktree / ".left").exists)
        os.kill(host.state("t-12.2")["pid"], signal.SIGKILL)
        assert host.result("t-12.2")["end"] == "lost"

    def goes_on(self, host: Host) -> Json:
        result = host.finished("ls; echo three > three", fence=3)
        assert result["pushed"]
        assert result["warnings"] == [
            f"changes of an earlier run conflicted with {BRANCH}: they are saved as refs/heads/wip/t-12"
        ]
        return result

    def test_is_kept_beside_the_branch_which_is_gone_on_with(self, host: Host) -> None:
        self.killed(host, "echo half > theirs; echo more > one")
        push_by_somebody(host, BRANCH, "theirs", BRANCH)
        self.goes_on(host)
        assert host.said(run="t-12.3") == "README\none\ntheirs\n"
        assert subjects(host) == ["Fix it", "somebody's theirs", "Fix it", "first"]
        assert (host.forge_git("show", "wip/t-12:theirs"), host.forge_git("show", "wip/t-12:one")) == ("half", "more")

    def test_is_kept_where_somebody_rewrote_the_branch(self, host: Host) -> None:
        self.killed(host, "echo half > theirs")
        push_by_somebody(host, "newer", "theirs", "main")
        force(host, host.forge_git("rev-parse", "newer"))
        self.goes_on(host)
        assert host.said(run="t-12.3") == "README\ntheirs\n"
        assert subjects(host) == ["Fix it", "somebody's theirs", "first"]
        assert host.forge_git("show", "wip/t-12:theirs") == "half"

    def test_is_kept_where_it_was_left_at_an_earlier_commit(self, host: Host) -> None:
        self.killed(host, "git checkout --quiet origin/main; echo half > one")
        self.goes_on(host)
        assert subjects(host) == ["Fix it", "Fix it", "first"]
        assert (host.forge_git("show", "wip/t-12:one"), host.forge_git("show", f"{BRANCH}:one")) == ("half", "one")

    def test_is_kept_where_it_was_in_the_midst_of_a_rebase(self, host: Host) -> None:
        who = "export GIT_{AUTHOR,COMMITTER}_NAME=a GIT_{AUTHOR,COMMITTER}_EMAIL=a@example.org"
        self.killed(
            host,
            f"exec bash -c '{who}; echo mine > one; git commit -qam mine; git checkout -q -b side HEAD~1; "
            "echo side > one; git commit -qam side; git checkout -q -; git rebase -q side; touch .left; sleep 60'",
        )
        result = host.finished("git status | head -1; echo three > three", fence=3)
        assert host.said(run="t-12.3") == f"On branch {BRANCH}\n"
        assert result["pushed"] and "is saved as refs/heads/wip/t-12" in result["warnings"][0]
        assert subjects(host) == ["Fix it", "mine", "Fix it", "first"]
        assert "<<<<<<<" in host.forge_git("show", "wip/t-12:one")

    def test_stays_where_it_is_in_nobodys_way(self, host: Host) -> None:
        self.killed(host, "echo half > two")
        push_by_somebody(host, BRANCH, "theirs", BRANCH)
        result = host.finished("true", fence=3)
        assert result["warnings"] == [] and host.forge_git("show", f"{BRANCH}:two") == "half"


class TestAnAgentThatRewritesItsBranch:
    AMEND = "echo better > one; git add one; git -c user.name=a -c user.email=a@b commit --quiet --amend -m better"

    def test_replaces_what_we_pushed_ourselves(self, host: Host) -> None:
        host.finished("echo one > one")
        assert host.finished(self.AMEND, fence=2)["pushed"]
        assert subjects(host) == ["better", "first"]

    @pytest.mark.parametrize("is_told", [True, False])
    def test_replaces_what_an_older_supervisor_or_another_host_pushed_if_that_was_reported(
        self, host: Host, is_told: bool
    ) -> None:
        first = host.finished("echo one > one")
        git("--git-dir", str(host.mirror()), "update-ref", "-d", f"refs/pushed/{BRANCH}")
        host.on_forge(self.AMEND, fence=2, repository=host.repository(**{"pushed": first["head"]} if is_told else {}))
        result = host.result("t-12.2")
        assert (result["pushed"], result["failure"]) == ((True, None) if is_told else (False, "branch_moved"))
        assert subjects(host) == (["better", "first"] if is_told else ["Fix it", "first"])

    def test_drops_what_we_pushed_ourselves(self, host: Host) -> None:
        first = host.finished("echo one > one")
        second = host.finished("echo two > two", fence=2)
        result = host.finished("git reset --quiet --hard HEAD~1", fence=3)
        assert (result["pushed"], result["changed"], result["base"]) == (True, True, second["head"])
        assert result["head"] == host.forge_git("rev-parse", BRANCH) == first["head"]
        again = host.finished("true", fence=4)
        assert (again["pushed"], again["changed"]) == (True, False)

    def test_drops_nothing_that_somebody_pushed_and_says_so(self, host: Host) -> None:
        host.finished("echo one > one")
        push_by_somebody(host, BRANCH, "theirs", BRANCH)
        result = host.finished("git reset --quiet --hard HEAD~1", fence=2)
        assert not result["pushed"] and subjects(host) == ["somebody's theirs", "Fix it", "first"]

    def test_drops_nothing_that_somebody_pushed_meanwhile(self, host: Host) -> None:
        host.finished("echo one > one")
        host.finished("echo two > two", fence=2)
        drop = "git reset --quiet --hard HEAD~1"
        result = meanwhile(host, drop, lambda: push_by_somebody(host, BRANCH, "theirs", BRANCH), fence=3)
        assert not result["pushed"] and subjects(host)[0] == "somebody's theirs"

    def test_drops_nothing_by_looking_at_an_earlier_commit(self, host: Host) -> None:
        first = host.finished("echo one > one")
        result = host.finished("git checkout --quiet origin/main", fence=2)
        assert (result["head"], result["pushed"], result["changed"]) == (first["head"], True, False)
        assert host.forge_git("rev-parse", BRANCH) == first["head"]
        assert host.finished("echo two > two", fence=3)["pushed"]
        assert subjects(host) == ["Fix it", "Fix it", "first"]

    def test_loses_nothing_that_somebody_pushed_before(self, host: Host) -> None:
        host.finished("echo one > one")
        push_by_somebody(host, BRANCH, "theirs", BRANCH)
        assert host.finished("git reset --quiet --hard HEAD~2; echo two > two", fence=2)["pushed"]
        assert "theirs" in host.forge_git("ls-tree", "--name-only", BRANCH).split()

    def test_loses_nothing_that_somebody_pushed_meanwhile(self, host: Host) -> None:
        host.finished("echo one > one")
        result = meanwhile(host, self.AMEND, lambda: push_by_somebody(host, BRANCH, "theirs", BRANCH), fence=2)
        assert (result["failure"], result["pushed"]) == ("branch_moved", False)
        assert host.forge_git("show", f"{BRANCH}:theirs") == "theirs"
        assert host.forge_git("show", "wip/t-12:one") == "better"


def test_a_branch_that_somebody_rebased_between_two_rounds_is_gone_on_with(host: Host) -> None:
    host.finished("echo one > one")
    clone = host.place / "rebased"
    git("clone", "--quiet", "--branch", "main", str(host.forge), str(clone))
    (clone / "base").write_text("newer")
    commit(clone, "newer base")
    git("-C", str(clone), "cherry-pick", f"origin/{BRANCH}")
    git("-C", str(clone), "push", "--quiet", "--force", "origin", f"HEAD:{BRANCH}")
    assert host.finished("cat base > two", fence=2)["pushed"]
    assert subjects(host) == ["Fix it", "Fix it", "newer base", "first"]


class TestAPullRequestThatIsPushedToRefsFor:
    """There is no branch: the forge moves `refs/pull/1/head`, and backwards only by the option `force-push`."""

    PULL = "refs/pull/1/head"
    ASKED = """#!/bin/sh
        read old new ref; case $ref in refs/for/*) ;; *) exit 0 ;; esac
        now=$(git rev-parse --quiet --verify refs/pull/1/head) || exit 0
        case " $GIT_PUSH_OPTION_0 $GIT_PUSH_OPTION_1 " in *" force-push=true "*) exit 0 ;; esac
        git merge-base --is-ancestor $now $new
    """
    MOVED = """#!/bin/sh
        read old new ref; case $ref in refs/for/*) ;; *) exit 0 ;; esac
        git update-ref refs/pull/1/head $new && git update-ref -d $ref
    """
    AMEND = TestAnAgentThatRewritesItsBranch.AMEND

    @pytest.fixture(autouse=True)
    def forge(self, host: Host) -> None:
        host.make_forge()
        host.forge_git("config", "receive.advertisePushOptions", "true")
        for name, script in (("pre-receive", self.ASKED), ("post-receive", self.MOVED)):
            (host.forge / "hooks" / name).write_text(script)
            (host.forge / "hooks" / name).chmod(0o755)
        self.agit = {
            **host.repository(),
            "push_to": "refs/for/main",
            "push_options": ["topic=12"],
            "fetch_from": self.PULL,
        }
        assert host.finished("echo one > one", repository={**self.agit, "fetch_from": ""})["pushed"]

    def by_somebody(self, host: Host) -> None:
        host.forge_git("branch", "seen", self.PULL)
        push_by_somebody(host, "theirs", "theirs", "seen")
        host.forge_git("update-ref", self.PULL, "theirs")

    def test_is_replaced_where_the_agent_rewrote_it(self, host: Host) -> None:
        assert host.finished(self.AMEND, fence=2, repository=self.agit)["pushed"]
        assert subjects(host, self.PULL) == ["better", "first"]

    def test_and_moved_meanwhile_is_joined(self, host: Host) -> None:
        assert meanwhile(host, "echo two > two", lambda: self.by_somebody(host), 2, repository=self.agit)["pushed"]
        assert {"one", "two", "theirs"} <= set(host.forge_git("ls-tree", "--name-only", self.PULL).split())

    def test_and_moved_meanwhile_is_not_replaced_by_an_agent_that_rewrote_it(self, host: Host) -> None:
        result = meanwhile(host, self.AMEND, lambda: self.by_somebody(host), 2, repository=self.agit)
        assert (result["failure"], result["pushed"]) == ("branch_moved", False)
        assert subjects(host, self.PULL) == ["somebody's theirs", "Fix it", "first"]

"""A push and the pushes of others to the same branch: nothing of theirs is overwritten, nothing of ours is lost."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.patience import wait_until
from tests.workers.supervisor.host import (
    BRANCH,
    Host,
    Json,
    commit,
    git,
    push_by_other,
)

WAIT = "until [ -e go ]; do sleep 0.02; done; rm go"
MINE = "git add --all; git -c user.name=a -c user.email=a@b commit --quiet"


def run_during(host: Host, script: str, theirs: Callable[[], None], fence: int = 1, **how: object) -> Json:
    """Return the result of a run; `theirs` is called while its agent works."""
    run = host.start_delivery(f"{script}; {WAIT}", fence=fence, **how)["run"]
    host.agent_state(run)
    theirs()
    (host.worktree / "go").touch()
    return host.result(run)


def subjects(host: Host, branch: str = BRANCH) -> list[str]:
    return host.forge_git("log", "--format=%s", branch).splitlines()


def force(host: Host, commit: str) -> None:
    host.forge_git("update-ref", f"refs/heads/{BRANCH}", commit)


class TestAPushOfSomeoneElse:
    @pytest.mark.parametrize("is_new", [True, False])
    def test_is_merged_and_validated(self, host: Host, is_new: bool) -> None:
        if not is_new:
            host.finish("echo one > one")
        fence, start = (1, "main") if is_new else (2, BRANCH)

        def theirs() -> None:
            push_by_other(host, BRANCH, "theirs", start)

        result = run_during(host, "echo two > two", theirs, fence, validation=["ls"])
        assert result["pushed"] and result["end"] == "finished", result
        assert result["head"] == host.forge_git("rev-parse", BRANCH)
        assert {"two", "theirs"} <= set(host.forge_git("ls-tree", "--name-only", BRANCH).split())
        own = host.forge_git("log", "--no-walk=unsorted", "--format=%s", *reversed(result["commits"]))
        assert own.splitlines() == [f"Merge what others pushed to {BRANCH}", "Fix it"]
        assert ["theirs" in check["tail"] for check in result["validation"]] == [False, True]

    def test_that_conflicts_stays_and_the_work_is_saved(self, host: Host) -> None:
        result = run_during(host, "echo mine > theirs", lambda: push_by_other(host, BRANCH, "theirs", "main"))
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "branch_moved", False)
        assert "merge origin/task/12-fix into it; it is saved as refs/heads/wip/t-12" in result["reason"]
        assert host.forge_git("show", f"{BRANCH}:theirs") == "theirs"
        assert host.forge_git("show", "wip/t-12:theirs") == "mine"
        merge = f"cat theirs; git -c user.name=a -c user.email=a@b merge --quiet origin/{BRANCH}; echo both > theirs; {MINE} -m both"
        assert host.finish(merge, fence=2)["pushed"], "the next run can merge it"
        assert host.log(run="t-12.2").startswith("mine\n") and host.forge_git("show", f"{BRANCH}:theirs") == "both"

    def test_during_the_own_push_is_merged(self, host: Host) -> None:
        host.make_forge()
        push_by_other(host, "later", "later", "main")
        later = host.forge_git("rev-parse", "later")
        move = f"rm $0\nenv -u GIT_QUARANTINE_PATH git update-ref refs/heads/{BRANCH} {later}"
        host.add_hook("pre-receive", move)
        result = host.finish("echo mine > mine")
        assert result["pushed"] and {"mine", "later"} <= set(host.forge_git("ls-tree", "--name-only", BRANCH).split())

    def test_that_removes_commits_is_not_undone(self, host: Host) -> None:
        host.finish("echo one > one")
        before = host.forge_git("rev-parse", "main")
        result = run_during(host, "echo two > two", lambda: force(host, before), fence=2)
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "branch_rewritten", False)
        assert host.forge_git("rev-parse", BRANCH) == before
        assert host.forge_git("show", "wip/t-12:two") == "two"
        assert host.finish("ls; echo three > three", fence=3)["pushed"], "the next one begins with what is there"
        assert host.log(run="t-12.3") == "README\n" and subjects(host) == ["Fix it", "first"]

    def test_that_removes_commits_is_not_undone_by_work_of_an_earlier_run(self, host: Host) -> None:
        host.finish("echo one > one")
        host.start_delivery(f"echo two > two; {MINE} -m two; exit 1", fence=2)
        host.result("t-12.2")
        push_by_other(host, "newer", "theirs", "main")
        force(host, host.forge_git("rev-parse", "newer"))
        host.start_delivery("true", fence=3)
        result = host.result("t-12.3")
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "branch_rewritten", False)
        assert subjects(host) == ["someone's theirs", "first"]
        assert host.forge_git("show", "wip/t-12:two") == "two"
        assert host.finish("ls; echo three > three", fence=4)["pushed"]
        assert host.log(run="t-12.4") == "README\ntheirs\n"
        assert subjects(host) == ["Fix it", "someone's theirs", "first"]


class TestChangesOfAKilledRun:
    """Uncommitted changes, and a push of someone else to the same files before the next run."""

    def kill_run(self, host: Host, script: str) -> None:
        host.finish("echo one > one")
        host.start_delivery(f"{script}; touch .left; sleep 60", fence=2)
        wait_until((host.worktree / ".left").exists, "the run has left its changes")
        os.kill(host.state("t-12.2")["pid"], signal.SIGKILL)
        assert host.result("t-12.2")["end"] == "lost"

    def next_run(self, host: Host) -> Json:
        result = host.finish("ls; echo three > three", fence=3)
        assert result["pushed"]
        assert result["warnings"] == [
            f"changes of an earlier run conflicted with {BRANCH}: they are saved as refs/heads/wip/t-12"
        ]
        return result

    def test_that_conflict_are_saved_and_the_branch_is_continued(self, host: Host) -> None:
        self.kill_run(host, "echo half > theirs; echo more > one")
        push_by_other(host, BRANCH, "theirs", BRANCH)
        self.next_run(host)
        assert host.log(run="t-12.3") == "README\none\ntheirs\n"
        assert subjects(host) == ["Fix it", "someone's theirs", "Fix it", "first"]
        assert (host.forge_git("show", "wip/t-12:theirs"), host.forge_git("show", "wip/t-12:one")) == ("half", "more")

    def test_are_saved_if_someone_rewrote_the_branch(self, host: Host) -> None:
        self.kill_run(host, "echo half > theirs")
        push_by_other(host, "newer", "theirs", "main")
        force(host, host.forge_git("rev-parse", "newer"))
        self.next_run(host)
        assert host.log(run="t-12.3") == "README\ntheirs\n"
        assert subjects(host) == ["Fix it", "someone's theirs", "first"]
        assert host.forge_git("show", "wip/t-12:theirs") == "half"

    def test_are_saved_if_they_are_on_an_earlier_commit(self, host: Host) -> None:
        self.kill_run(host, "git checkout --quiet origin/main; echo half > one")
        self.next_run(host)
        assert subjects(host) == ["Fix it", "Fix it", "first"]
        assert (host.forge_git("show", "wip/t-12:one"), host.forge_git("show", f"{BRANCH}:one")) == ("half", "one")

    def test_are_saved_if_a_rebase_is_open(self, host: Host) -> None:
        who = "export GIT_{AUTHOR,COMMITTER}_NAME=a GIT_{AUTHOR,COMMITTER}_EMAIL=a@example.org"
        self.kill_run(
            host,
            f"exec bash -c '{who}; echo mine > one; git commit -qam mine; git checkout -q -b side HEAD~1; "
            "echo side > one; git commit -qam side; git checkout -q -; git rebase -q side; touch .left; sleep 60'",
        )
        result = host.finish("git status | head -1; echo three > three", fence=3)
        assert host.log(run="t-12.3") == f"On branch {BRANCH}\n"
        assert result["pushed"] and "is saved as refs/heads/wip/t-12" in result["warnings"][0]
        assert subjects(host) == ["Fix it", "mine", "Fix it", "first"]
        assert "<<<<<<<" in host.forge_git("show", "wip/t-12:one")

    def test_stay_if_nothing_conflicts(self, host: Host) -> None:
        self.kill_run(host, "echo half > two")
        push_by_other(host, BRANCH, "theirs", BRANCH)
        result = host.finish("true", fence=3)
        assert result["warnings"] == [] and host.forge_git("show", f"{BRANCH}:two") == "half"


class TestAnAgentThatRewritesItsBranch:
    AMEND = "echo better > one; git add one; git -c user.name=a -c user.email=a@b commit --quiet --amend -m better"

    def test_replaces_commits_of_this_task(self, host: Host) -> None:
        host.finish("echo one > one")
        assert host.finish(self.AMEND, fence=2)["pushed"]
        assert subjects(host) == ["better", "first"]

    @pytest.mark.parametrize("is_reported", [True, False])
    def test_replaces_commits_that_another_host_pushed_if_they_were_reported(
        self, host: Host, is_reported: bool
    ) -> None:
        first = host.finish("echo one > one")
        git("--git-dir", str(host.mirror()), "update-ref", "-d", f"refs/pushed/{BRANCH}")
        host.start_delivery(
            self.AMEND, fence=2, repository=host.repository(**{"pushed": first["head"]} if is_reported else {})
        )
        result = host.result("t-12.2")
        assert (result["pushed"], result["failure"]) == ((True, None) if is_reported else (False, "branch_moved"))
        assert subjects(host) == (["better", "first"] if is_reported else ["Fix it", "first"])

    def test_removes_commits_of_this_task(self, host: Host) -> None:
        first = host.finish("echo one > one")
        second = host.finish("echo two > two", fence=2)
        result = host.finish("git reset --quiet --hard HEAD~1", fence=3)
        assert (result["pushed"], result["changed"], result["base"]) == (True, True, second["head"])
        assert result["head"] == host.forge_git("rev-parse", BRANCH) == first["head"]
        again = host.finish("true", fence=4)
        assert (again["pushed"], again["changed"]) == (True, False)

    def test_removes_no_commit_of_someone_else(self, host: Host) -> None:
        host.finish("echo one > one")
        push_by_other(host, BRANCH, "theirs", BRANCH)
        result = host.finish("git reset --quiet --hard HEAD~1", fence=2)
        assert not result["pushed"] and subjects(host) == ["someone's theirs", "Fix it", "first"]

    def test_removes_no_commit_that_someone_pushes_during_the_run(self, host: Host) -> None:
        host.finish("echo one > one")
        host.finish("echo two > two", fence=2)
        drop = "git reset --quiet --hard HEAD~1"
        result = run_during(host, drop, lambda: push_by_other(host, BRANCH, "theirs", BRANCH), fence=3)
        assert not result["pushed"] and subjects(host)[0] == "someone's theirs"

    def test_removes_nothing_by_a_checkout_of_an_earlier_commit(self, host: Host) -> None:
        first = host.finish("echo one > one")
        result = host.finish("git checkout --quiet origin/main", fence=2)
        assert (result["head"], result["pushed"], result["changed"]) == (first["head"], True, False)
        assert host.forge_git("rev-parse", BRANCH) == first["head"]
        assert host.finish("echo two > two", fence=3)["pushed"]
        assert subjects(host) == ["Fix it", "Fix it", "first"]

    def test_keeps_commits_that_someone_pushed_before(self, host: Host) -> None:
        host.finish("echo one > one")
        push_by_other(host, BRANCH, "theirs", BRANCH)
        assert host.finish("git reset --quiet --hard HEAD~2; echo two > two", fence=2)["pushed"]
        assert "theirs" in host.forge_git("ls-tree", "--name-only", BRANCH).split()

    def test_keeps_commits_that_someone_pushes_during_the_run(self, host: Host) -> None:
        host.finish("echo one > one")
        result = run_during(host, self.AMEND, lambda: push_by_other(host, BRANCH, "theirs", BRANCH), fence=2)
        assert (result["failure"], result["pushed"]) == ("branch_moved", False)
        assert host.forge_git("show", f"{BRANCH}:theirs") == "theirs"
        assert host.forge_git("show", "wip/t-12:one") == "better"


def test_a_branch_that_someone_rebased_between_two_runs_is_continued(host: Host) -> None:
    host.finish("echo one > one")
    clone = host.place / "rebased"
    git("clone", "--quiet", "--branch", "main", str(host.forge), str(clone))
    (clone / "base").write_text("newer")
    commit(clone, "newer base")
    git("-C", str(clone), "cherry-pick", f"origin/{BRANCH}")
    git("-C", str(clone), "push", "--quiet", "--force", "origin", f"HEAD:{BRANCH}")
    assert host.finish("cat base > two", fence=2)["pushed"]
    assert subjects(host) == ["Fix it", "Fix it", "newer base", "first"]


class TestAPullRequestThatIsPushedToRefsFor:
    """It has no branch: the forge moves `refs/pull/1/head`, backwards only with the option `force-push`."""

    PULL = "refs/pull/1/head"
    ASKED = """
        read old new ref; case $ref in refs/for/*) ;; *) exit 0 ;; esac
        now=$(git rev-parse --quiet --verify refs/pull/1/head) || exit 0
        case " $GIT_PUSH_OPTION_0 $GIT_PUSH_OPTION_1 " in *" force-push=true "*) exit 0 ;; esac
        git merge-base --is-ancestor $now $new
    """
    MOVED = """
        read old new ref; case $ref in refs/for/*) ;; *) exit 0 ;; esac
        git update-ref refs/pull/1/head $new && git update-ref -d $ref
    """
    AMEND = TestAnAgentThatRewritesItsBranch.AMEND

    @pytest.fixture(autouse=True)
    def forge(self, host: Host) -> None:
        host.make_forge()
        host.forge_git("config", "receive.advertisePushOptions", "true")
        for name, script in (("pre-receive", self.ASKED), ("post-receive", self.MOVED)):
            host.add_hook(name, script)
        self.agit = {
            **host.repository(),
            "push_to": "refs/for/main",
            "push_options": ["topic=12"],
            "fetch_from": self.PULL,
        }
        assert host.finish("echo one > one", repository={**self.agit, "fetch_from": ""})["pushed"]

    def push_to_pull(self, host: Host) -> None:
        host.forge_git("branch", "seen", self.PULL)
        push_by_other(host, "theirs", "theirs", "seen")
        host.forge_git("update-ref", self.PULL, "theirs")

    def test_is_replaced_if_the_agent_rewrote_it(self, host: Host) -> None:
        assert host.finish(self.AMEND, fence=2, repository=self.agit)["pushed"]
        assert subjects(host, self.PULL) == ["better", "first"]

    def test_that_moved_during_the_run_is_merged(self, host: Host) -> None:
        assert run_during(host, "echo two > two", lambda: self.push_to_pull(host), 2, repository=self.agit)["pushed"]
        assert {"one", "two", "theirs"} <= set(host.forge_git("ls-tree", "--name-only", self.PULL).split())

    def test_that_moved_during_the_run_is_not_replaced(self, host: Host) -> None:
        result = run_during(host, self.AMEND, lambda: self.push_to_pull(host), 2, repository=self.agit)
        assert (result["failure"], result["pushed"]) == ("branch_moved", False)
        assert subjects(host, self.PULL) == ["someone's theirs", "Fix it", "first"]

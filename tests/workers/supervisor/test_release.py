"""A release deletes what is on the forge and saves the rest."""

from __future__ import annotations

from tests.workers.supervisor.host import (
    Host,
    git,
)


def test_pushed_work_is_deleted(host: Host) -> None:
    host.finish("echo one > file")
    assert host.release() == {"released": True, "saved": None}
    assert not host.folder().exists() and not host.worktree.exists()
    assert git("--git-dir", str(host.mirror()), "branch", "--list") == ""
    assert host.release() == {"released": True, "saved": None}
    host.finish("cat file", fence=2)


def test_uncommitted_work_is_saved_on_the_forge(host: Host) -> None:
    host.start_delivery("echo half > file; exit 1")
    host.result()
    assert host.release()["saved"] == "refs/heads/wip/t-12"
    assert host.forge_git("show", "wip/t-12:file") == "half"
    assert not host.worktree.exists()


def test_without_a_forge_work_is_saved_as_a_bundle(host: Host) -> None:
    host.start_delivery("echo half > file; exit 1")
    host.result()
    host.forge.rename(host.place / "gone.git")
    saved = host.release()["saved"]
    assert saved == str(host.home / "saved" / "i1-t-12-1.bundle")
    rescued = host.place / "rescued"
    git("clone", "--quiet", str(host.place / "gone.git"), str(rescued))
    git("-C", str(rescued), "fetch", "--quiet", saved, "HEAD")
    assert git("-C", str(rescued), "show", "FETCH_HEAD:file") == "half"


def test_the_worktree_is_kept_on_request(host: Host) -> None:
    host.finish("echo one > file")
    assert host.release(worktree=False)["saved"] is None
    assert host.worktree.exists() and not host.folder().exists()


def test_a_folder_without_a_repository_is_saved_as_an_archive(host: Host) -> None:
    host.start("echo made > file")
    host.result()
    saved = host.release(repository=None)["saved"]
    assert saved == str(host.home / "saved" / "i1-t-12-1.tar.gz")
    assert not host.worktree.exists()


def test_a_run_that_works_is_not_released(host: Host) -> None:
    host.start("sleep 60")
    host.agent_state()
    code, answer = host.call("release", {"home": str(host.home), "instance": "i1", "run": "t-12.1", "task": "t-12"})
    assert code == 2 and "still going" in answer["error"]
    assert host.worktree.exists()


def test_the_worktree_of_a_newer_run_is_not_released(host: Host) -> None:
    host.start("true")
    host.result()
    host.start("sleep 60", fence=2)
    host.agent_state("t-12.2")
    wish = {"home": str(host.home), "instance": "i1", "run": "t-12.1", "task": "t-12", "worktree": True}
    code, answer = host.call("release", wish)
    assert code == 2 and "another run" in answer["error"]

"""A run prepares, works, validates and delivers."""

from __future__ import annotations

from tests.workers.supervisor.host import (
    Host,
    push_by_other,
)


def test_a_run_prepares_works_validates_and_delivers(host: Host) -> None:
    result = host.finish("echo new > file; echo done", validation=["test -f file", "echo checked"])
    assert [(step["name"], step["ok"]) for step in result["steps"]] == [
        ("prepare", True), ("agent", True), ("validate", True), ("deliver", True)]  # fmt: skip
    assert result["head"] == host.forge_git("rev-parse", "task/12-fix") == result["commits"][-1]
    assert result["base"] == host.forge_git("rev-parse", "main")
    assert (result["pushed"], result["changed"], result["exit_code"], result["reason"]) == (
        True,
        True,
        0,
        None,
    )
    assert [check["tail"] for check in result["validation"]] == ["", "checked\n"]
    assert (
        host.forge_git("log", "-1", "--format=%an <%ae> %cn %s", "task/12-fix")
        == "Fleet <fleet@example.org> Fleet Fix it"
    )
    assert host.forge_git("show", "task/12-fix:file") == "new"


def test_a_second_run_continues_in_the_same_worktree(host: Host) -> None:
    first = host.finish("echo one > file; echo ignored > kept; echo kept > .gitignore")
    second = host.finish("cat kept; echo two > file", fence=2)
    assert host.log(run="t-12.2") == "ignored\n"
    assert second["base"] == first["head"]
    assert second["commits"] == [second["head"]] == [host.forge_git("rev-parse", "task/12-fix")]


def test_a_second_run_begins_with_what_others_pushed(host: Host) -> None:
    host.finish("echo one > file")
    push_by_other(host, "task/12-fix", "theirs", start="task/12-fix")
    assert host.finish("cat theirs", fence=2)["base"] == host.forge_git("rev-parse", "task/12-fix")
    assert host.log(run="t-12.2") == "theirs"


def test_a_run_continues_a_branch_that_is_on_the_forge(host: Host) -> None:
    host.make_forge()
    push_by_other(host, "task/12-fix", "theirs", start="main")
    assert host.finish("cat theirs")["base"] == host.forge_git("rev-parse", "task/12-fix")


def test_a_longer_branch_name_is_another_branch(host: Host) -> None:
    host.make_forge()
    push_by_other(host, "task/12-fix-more", "theirs", start="main")
    result = host.finish("test ! -e theirs")
    assert result["base"] == host.forge_git("rev-parse", "main")


def test_commits_the_agent_made_itself_are_delivered(host: Host) -> None:
    agent = "git config user.name A; git config user.email a@b; echo 1 > a; git add a; git commit -qm mine; echo 2 > b"
    result = host.finish(agent)
    assert len(result["commits"]) == 2
    assert host.forge_git("log", "--format=%s", "-2", "task/12-fix") == "Fix it\nmine"


def test_a_run_without_changes_pushes_nothing(host: Host) -> None:
    result = host.finish("true")
    assert (result["changed"], result["pushed"], result["commits"]) == (False, False, [])
    assert host.forge_git("branch", "--list", "task/*") == ""


def test_a_later_run_without_changes_is_pushed_but_not_changed(host: Host) -> None:
    host.finish("echo one > file")
    result = host.finish("true", fence=2)
    assert (result["changed"], result["pushed"]) == (False, True)


def test_a_run_delivers_what_an_earlier_one_could_not(host: Host) -> None:
    refuse = host.add_hook("pre-receive", "echo the forge is closed >&2\nexit 1")
    host.start_delivery("echo one > file")
    first = host.result()
    assert (first["end"], first["step"], first["pushed"]) == ("failed", "deliver", False)
    assert "the forge is closed" in first["reason"]
    refuse.unlink()
    second = host.finish("true", fence=2)
    assert (second["changed"], second["pushed"]) == (False, True)
    assert host.forge_git("rev-parse", "task/12-fix") == first["head"]


def test_a_failed_validation_is_reported_and_the_work_still_pushed(host: Host) -> None:
    checks = ["true", "yes 0123456789 | head -n 2000; exit 3", "echo never"]
    result = host.finish("echo one > file", validation=checks)
    assert [check["exit_code"] for check in result["validation"]] == [0, 3]
    assert len(result["validation"][1]["tail"]) == 4000
    assert len(host.log("validate.log")) == 22000
    assert result["pushed"] and result["reason"].startswith("validation failed")


def test_a_validation_ends_at_its_limit(host: Host) -> None:
    result = host.finish("true", validation=["sleep 60"], limits={"validation_secs": 0.3})
    assert result["validation"][0]["exit_code"] == 124


def test_a_failed_agent_delivers_nothing_and_its_files_stay(host: Host) -> None:
    host.start_delivery("echo half > file; exit 7")
    result = host.result()
    assert (result["end"], result["exit_code"], result["pushed"]) == ("failed", 7, False)
    assert "code 7" in result["reason"]
    assert (host.worktree / "file").read_text() == "half\n"
    assert host.forge_git("branch", "--list", "task/*") == ""


def test_a_missing_base_is_named(host: Host) -> None:
    host.make_forge()
    host.start_delivery("true", repository=host.repository(base="nowhere"))
    result = host.result()
    assert (result["end"], result["step"]) == ("failed", "prepare")
    assert "nowhere" in result["reason"]

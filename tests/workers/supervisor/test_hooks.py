"""The repository's hooks run around the steps."""

from __future__ import annotations

import pytest

from tests.workers.supervisor.host import (
    Host,
)


class TestHooks:
    def test_run_around_the_steps_in_the_worktree(self, host: Host) -> None:
        hooks = {"after_prepare": ["echo 1 > order"], "before_agent": ["echo 2 >> order"], "after_agent": ["echo 4 >> order"],
                 "before_deliver": ["echo 5 >> order"]}  # fmt: skip
        result = host.finish("echo 3 >> order", hooks=hooks)
        assert result["pushed"] and host.forge_git("show", "task/12-fix:order").split() == list("12345")
        assert [note["hook"] for note in result["hooks"]] == list(hooks)

    def test_that_fail_end_the_run_with_their_output(self, host: Host) -> None:
        host.start_delivery("echo x > x", hooks={"before_agent": ["echo the tools are missing; exit 3", "echo never"]})
        result = host.result()
        assert (result["end"], result["failure"], result["step"]) == ("failed", "hook_failed", "agent")
        assert "ended with 3: the tools are missing" in result["reason"] and not result["pushed"]
        assert len(result["hooks"]) == 1

    def test_before_the_worktree_exists_run_in_the_runs_folder(self, host: Host) -> None:
        result = host.finish("true", hooks={"before_prepare": [f"pwd; ls {host.worktree} || echo none yet"]})
        (note,) = result["hooks"]
        assert note["tail"].splitlines()[0] == str(host.folder()) and note["tail"].endswith("none yet\n")
        host.start_delivery("true", hooks={"before_prepare": ["exit 4"]}, fence=2)
        again = host.result("t-12.2")
        assert (again["failure"], again["step"], again["base"]) == ("hook_failed", "prepare", None)

    def test_that_fail_after_the_delivery_are_warnings(self, host: Host) -> None:
        result = host.finish("echo x > x", hooks={"after_deliver": ["echo no chat here; exit 3", "echo never"]})
        assert result["pushed"] and (result["failure"], result["reason"]) == (None, None)
        (said,) = result["warnings"]
        assert "hook after_deliver" in said and said.endswith("ended with 3: no chat here")

    def test_end_at_their_limit(self, host: Host) -> None:
        host.start("true", hooks={"after_agent": ["sleep 60"]}, limits={"hook_secs": 0.3})
        assert "ended with 124" in host.result()["reason"]

    def test_get_no_credential(self, host: Host) -> None:
        secret = {"username": "fleet", "password": "hunter22"}
        host.finish("true", hooks={"after_agent": ["env > seen; ps -eo args >> seen"]}, credentials=secret)
        assert "hunter22" not in host.forge_git("show", "task/12-fix:seen")

    @pytest.mark.parametrize("hooks", [{"before_agent": "rm"}, {"before_agent": [1]}, {"before_agent": ["a\0b"]}, [1]])
    def test_of_the_wrong_type_are_refused(self, host: Host, hooks: object) -> None:
        _, answer = host.call("start", host.request("true", hooks=hooks))
        assert "error" in answer

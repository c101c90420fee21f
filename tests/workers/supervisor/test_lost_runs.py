"""What a dead supervisor, a rebooted host or a killed git left behind does no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.patience import wait_until
from tests.workers.supervisor.host import Host, Json, is_running, push_by_other, wait_for_exit


def kill_supervisor(state: Json) -> None:
    os.kill(state["pid"], signal.SIGKILL)
    wait_for_exit(state["pid"])


def test_a_run_whose_supervisor_was_killed_is_lost_and_its_agent_ended(host: Host) -> None:
    host.start("setsid sleep 0; sleep 60 & sleep 60")
    state = host.agent_state()
    os.kill(state["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["reason"], result["step"]) == ("lost", "the supervisor died", "agent")
    wait_for_exit(state["agent_pid"])
    assert host.poll()["result"] == result
    assert host.start("echo again")["state"] == "known"


def test_everything_below_the_agent_of_a_dead_supervisor_is_ended(host: Host) -> None:
    host.start("setsid sh -c 'echo $$; setsid env -i sleep 60 & exec env -i sleep 61' & sleep 60")
    state = host.agent_state()
    leader = int(host.first_output())
    below = wait_until(lambda: children(leader), "the agent has children")
    os.kill(state["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["survivors"]) == ("lost", [])
    assert not any(is_running(pid) for pid in [leader, *below, state["agent_pid"]])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_reboot_is_the_reason_and_no_process_of_a_former_boot_is_killed(host: Host) -> None:
    host.start("sleep 60")
    state = host.agent_state()
    kill_supervisor(state)
    (host.folder() / "state.json").write_text(json.dumps({**state, "boot_id": "another"}))
    assert host.result()["reason"] == "the host was rebooted"
    assert is_running(state["agent_pid"])  # after a reboot another program would have its number
    os.killpg(state["agent_pid"], signal.SIGKILL)


def test_a_process_with_a_reused_pid_is_not_killed(host: Host) -> None:
    host.start("sleep 60")
    state = host.agent_state()
    kill_supervisor(state)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        reused = {**state, "pid": os.getpid(), "agent_pid": other.pid, "agent_start": 1}
        (host.folder() / "state.json").write_text(json.dumps(reused))
        result = host.result()
        assert result["reason"] == "the supervisor died, and its process number is another program's now"
        assert is_running(other.pid)
        other.kill()


def test_a_sigterm_without_a_cancel_is_called_a_shutdown(host: Host) -> None:
    host.start("sleep 60")
    os.kill(host.agent_state()["pid"], signal.SIGTERM)
    result = host.result()
    assert result["end"] == "lost" and "shutting down" in result["reason"]


def test_a_run_that_was_lost_while_it_pushed_names_the_commit(host: Host) -> None:
    host.hold_push()
    host.start_delivery("echo one > file", validation=["true"])
    host.wait_for_push()
    os.kill(host.state()["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["step"], result["pushed"]) == ("lost", "deliver", False)
    assert [check["exit_code"] for check in result["validation"]] == [0]
    host.release_push()
    words = ("for-each-ref", "--format=%(objectname)", "refs/heads/task")
    assert wait_until(lambda: host.forge_git(*words), "the push has arrived") == result["head"]


def test_a_worktree_without_an_index_is_made_again(host: Host) -> None:
    host.finish("true")
    (next((host.mirror() / "worktrees").iterdir()) / "index").unlink()
    (host.worktree / ".git").unlink()
    assert host.finish("cat README", fence=2)["end"] == "finished"
    assert host.log(run="t-12.2") == "hello\n"


def test_an_index_lock_of_a_killed_git_is_deleted(host: Host) -> None:
    host.finish("true")
    lock = next((host.mirror() / "worktrees").iterdir()) / "index.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    assert host.finish("echo one > file", fence=2)["pushed"]


def test_a_ref_lock_of_a_killed_git_is_deleted(host: Host) -> None:
    host.finish("true")
    push_by_other(host, "main", "theirs", start="main")
    lock = host.mirror() / "refs" / "remotes" / "origin" / "main.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    host.finish("true", fence=2)

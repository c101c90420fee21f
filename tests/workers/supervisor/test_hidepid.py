"""A /proc that is mounted with hidepid hides supervisors from their own user: they are not dumpable."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.patience import wait_until
from tests.summary import had, lacks
from tests.workers.supervisor.account import NOBODY, User
from tests.workers.supervisor.host import (
    Json,
    commit,
    git,
    is_running,
    read,
    wait_for_exit,
    wait_for_json,
    works_below,
)

HIDDEN = "Processes that are hidden (hidepid)"
MOUNTED = "mount -t proc -o hidepid={} proc /proc"
WITHIN = """#!/bin/sh
exec unshare --mount sh -c '{} && exec setpriv --reuid={} --regid={} --clear-groups /usr/bin/python3 "$@"' python "$@"
"""


@pytest.fixture(params=[1, 2])
def hidden(user: User, request: pytest.FixtureRequest) -> Iterator[User]:
    """A user whose Python has such a /proc, in a mount namespace of its own."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        lacks(HIDDEN, "it takes root, unshare and setpriv to mount one")
    mounted = MOUNTED.format(request.param)
    tried = subprocess.run(["unshare", "--mount", "sh", "-c", mounted], capture_output=True, text=True, check=False)
    if tried.returncode:
        lacks(HIDDEN, f"none could be mounted: {tried.stderr.strip()}")
    had(HIDDEN, "Supervisors were hidden by /proc (hidepid)")
    within = user.home / "python"
    within.write_text(WITHIN.format(mounted, NOBODY, NOBODY))
    within.chmod(0o755)
    user.python, user.how = str(within), {}
    yield user
    for path in user.home.glob("fleet/runs/i1/*/state.json"):
        state = read(path) or {}
        for pid in filter(None, (state.get("agent_pid"), state["pid"])):
            if works_below(user.home, pid):
                os.kill(pid, signal.SIGKILL)


def agent_state(user: User, run: str) -> Json:
    """Return the state of a run once its agent works."""
    wait_until((user.workspace(run) / "works").exists, f"the agent of {run} works")
    path = user.folder(run) / "state.json"

    def state() -> Json | None:
        found = read(path)
        return found if found and found["agent_start"] else None

    return wait_for_json(state, f"{run} notes its agent")


def test_a_run_is_cancelled(hidden: User) -> None:
    hidden.start("one", "touch works; sleep 60")
    agent_state(hidden, "one")
    assert hidden.call("poll", runs=[{"run": "one.1"}])["runs"]["one.1"]["result"] is None
    assert hidden.call("cancel", run="one.1") == {"run": "one.1", "state": "cancelling"}
    assert hidden.result("one")["end"] == "cancelled"


def test_a_run_whose_supervisor_died_is_lost_and_its_agent_ended(hidden: User) -> None:
    hidden.start("one", "touch works; exec env -i sleep 60")
    state = agent_state(hidden, "one")
    os.kill(state["pid"], signal.SIGKILL)
    wait_for_exit(state["pid"])
    assert hidden.call("cancel", run="one.1")["state"] == "ended"
    assert hidden.result("one")["reason"] == "the supervisor died"
    wait_for_exit(state["agent_pid"])


def test_a_reused_pid_of_another_hidden_process_gets_no_signal(hidden: User) -> None:
    hidden.start("one", "touch works; sleep 60")
    hidden.start("two", "touch works; sleep 60")
    mine, other = agent_state(hidden, "one"), agent_state(hidden, "two")
    os.kill(mine["pid"], signal.SIGKILL)
    wait_for_exit(mine["pid"])
    (hidden.home / "fleet/runs/i1/one.1/state.json").write_text(json.dumps({**mine, "pid": other["pid"]}))
    assert hidden.call("cancel", run="one.1")["state"] == "ended"
    assert is_running(other["pid"]) and is_running(other["agent_pid"])


def test_the_first_run_waits_for_the_spare_worktree(hidden: User) -> None:
    forge = hidden.home / "forge"
    git("init", "--quiet", "--initial-branch=main", str(forge))
    for number in range(3000):
        (forge / f"file-{number}").write_text("text")
    commit(forge, "first")
    for path in (forge, *forge.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    agent = {"argv": ["true"], "prompt": ""}
    repository = {"url": f"file://{forge}", "base": "main", "branch": "task/1"}
    hidden.call("start", run="one.1", task="one", agent=agent, repository=repository, limits={"spare_secs": 0.00001})
    hidden.result("one")
    assert list((hidden.home / "fleet").glob("mirrors/*.git/worktrees/spare/index"))

"""A host whose /proc is mounted with hidepid: it hides supervisors, which let nobody look into them, from their own user."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.summary import had, lacks
from tests.workers.supervisor.test_isolation import NOBODY, User, user
from tests.workers.supervisor.test_supervisor import Json, commit, eventually, git, is_running, read, told, works_below

__all__ = ["user"]
HIDDEN = "Processes that are hidden (hidepid)"
MOUNTED = "mount -t proc -o hidepid={} proc /proc"
WITHIN = """#!/bin/sh
exec unshare --mount sh -c '{} && exec setpriv --reuid={} --regid={} --clear-groups /usr/bin/python3 "$@"' python "$@"
"""


@pytest.fixture(params=[1, 2])
def hidden(user: User, request: pytest.FixtureRequest) -> Iterator[User]:
    """The user's Python sees such a /proc, in a namespace of mounts of its own."""
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


def ask(user: User, verb: str, **request: object) -> Json:
    argv = [user.python, "-I", "-S", str(user.home / "supervisor.py"), verb]
    wish = json.dumps({"home": str(user.home / "fleet"), "instance": "i1", **request}).encode()
    return told(subprocess.run(argv, input=wish, stdout=subprocess.PIPE, check=False, cwd=user.home).stdout)


def working(user: User, run: str) -> Json:
    """The state once its agent works."""
    folder = user.home / "fleet" / "runs" / "i1" / f"{run}.1"
    eventually((user.work(run) / "works").exists)
    state: Json = eventually(lambda: (state := read(folder / "state.json") or {})["agent_start"] and state)
    return state


def test_a_run_is_cancelled(hidden: User) -> None:
    hidden.start("one", "touch works; sleep 60")
    working(hidden, "one")
    assert ask(hidden, "poll", runs=[{"run": "one.1"}])["runs"]["one.1"]["result"] is None
    assert ask(hidden, "cancel", run="one.1") == {"run": "one.1", "state": "cancelling"}
    assert hidden.result("one")["end"] == "cancelled"


def test_a_run_whose_supervisor_died_is_lost_and_its_agent_ended(hidden: User) -> None:
    hidden.start("one", "touch works; exec env -i sleep 60")
    state = working(hidden, "one")
    os.kill(state["pid"], signal.SIGKILL)
    eventually(lambda: not is_running(state["pid"]))
    assert ask(hidden, "cancel", run="one.1")["state"] == "ended"
    assert hidden.result("one")["reason"] == "the supervisor died"
    eventually(lambda: not is_running(state["agent_pid"]))


def test_a_number_that_is_another_hidden_process_by_now_is_not_signalled(hidden: User) -> None:
    hidden.start("one", "touch works; sleep 60")
    hidden.start("two", "touch works; sleep 60")
    mine, other = working(hidden, "one"), working(hidden, "two")
    os.kill(mine["pid"], signal.SIGKILL)
    eventually(lambda: not is_running(mine["pid"]))
    (hidden.home / "fleet/runs/i1/one.1/state.json").write_text(json.dumps({**mine, "pid": other["pid"]}))
    assert ask(hidden, "cancel", run="one.1")["state"] == "ended"
    assert is_running(other["pid"]) and is_running(other["agent_pid"])


def test_the_spare_of_a_large_repository_is_awaited(hidden: User) -> None:
    forge = hidden.home / "forge"
    git("init", "--quiet", "--initial-branch=main", str(forge))
    for number in range(3000):
        (forge / f"file-{number}").write_text("text")
    commit(forge, "first")
    for path in (forge, *forge.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    agent = {"argv": ["true"], "prompt": ""}
    repository = {"url": f"file://{forge}", "base": "main", "branch": "task/1"}
    ask(hidden, "start", run="one.1", task="one", agent=agent, repository=repository, limits={"spare_secs": 0.00001})
    hidden.result("one")
    assert list((hidden.home / "fleet").glob("mirrors/*.git/worktrees/spare/index"))

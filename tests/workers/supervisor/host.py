"""A host with a home for the fleet and a forge, and what an operator does on it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.patience import patient, wait_until
from workers.supervisor import bundle

_built = tempfile.TemporaryDirectory(prefix="fleet-supervisor-")
SUPERVISOR = Path(_built.name) / "supervisor.py"
SUPERVISOR.write_bytes(bundle.source())
ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
RUN = "t-12.1"
BRANCH = "task/12-fix"
Json = dict[str, Any]


class Host:
    """A host that is called as over SSH: the bundle as a program, JSON in, JSON out."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.forge = place, place / "fleet", place / "forge.git"
        self.user_home = place / "user"
        self.user_home.mkdir()

    def call(self, verb: str, request: Json | str, **how: Any) -> tuple[int, Json]:
        """Send a request. Return exit code and answer."""
        text = request if isinstance(request, str) else json.dumps(request)
        env = {**ENVIRONMENT, "HOME": str(self.user_home), **how.pop("env", {})}
        argv = [sys.executable, "-I", "-S", str(SUPERVISOR), verb]
        how = {"stdout": subprocess.PIPE, "timeout": patient(60), "env": env, **how}
        done = subprocess.run(argv, input=text.encode(), check=False, **how)
        return done.returncode, parse_answer(done.stdout)

    def ask(self, verb: str, **request: Any) -> Json:
        """Send a request that succeeds."""
        code, answer = self.call(verb, {"home": str(self.home), "instance": "i1", **request})
        assert code == 0, answer
        return answer

    def request(self, script: str = "", **changes: Any) -> Json:
        """Return a start request for an agent that is a shell script. Nothing ends it early unless a test asks for it."""
        fence = changes.pop("fence", 1)
        agent = {"argv": ["sh", "-c", script], "prompt": "do it", **changes.pop("agent", {})}
        limits = {"wall_secs": patient(90), "silence_secs": patient(90), "grace_secs": 0.5, "spare_secs": 600}
        return {
            "home": str(self.home), "instance": "i1", "run": f"t-12.{fence}", "task": "t-12", "agent": agent,
            "limits": {**limits, **changes.pop("limits", {})}, "heartbeat_secs": 0.2, "repository": None, **changes,
        }  # fmt: skip

    def start(self, script: str = "", **changes: Any) -> Json:
        return self.ask("start", **self.request(script, **changes))

    def start_delivery(self, script: str = "", **changes: Any) -> Json:
        """Start a run that delivers to the forge."""
        if not self.forge.exists():
            self.make_forge()
        delivery = {"message": "Fix it", "author_name": "Fleet", "author_email": "fleet@example.org"}
        return self.start(script, **{"repository": self.repository(), "delivery": delivery, **changes})

    def finish(self, *args: str, **changes: Any) -> Json:
        """Start a run that delivers, and return its result, which must be `finished`."""
        result = self.result(self.start_delivery(*args, **changes)["run"])
        assert result["end"] == "finished", result
        return result

    def repository(self, **changes: str) -> Json:
        return {"url": f"file://{self.forge}", "base": "main", "branch": BRANCH, **changes}

    def make_forge(self) -> None:
        seed = self.place / "seed"
        git("init", "--quiet", "--initial-branch=main", str(seed))
        (seed / "README").write_text("hello\n")
        commit(seed, "first")
        git("clone", "--quiet", "--bare", str(seed), str(self.forge))

    def forge_git(self, *words: str) -> str:
        return git("--git-dir", str(self.forge), *words)

    def add_hook(self, name: str, script: str) -> Path:
        """Add a hook to the forge, which is made if it is not there."""
        if not self.forge.exists():
            self.make_forge()
        hook = self.forge / "hooks" / name
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)
        return hook

    def hold_push(self) -> None:
        """Make the forge hold each push until `release_push`."""
        self.add_hook("pre-receive", f"touch {self.place}/pushing; until [ -e {self.place}/go ]; do sleep 0.02; done")

    def wait_for_push(self) -> None:
        wait_until((self.place / "pushing").exists, "the forge has received the push")

    def release_push(self) -> None:
        (self.place / "go").touch()

    def poll(self, run: str = RUN, **changes: Any) -> Json:
        answer = self.ask("poll", runs=[{"run": run, "stdout": 0, "stderr": 0}], **changes)
        found: Json = answer["runs"][run]
        return found

    def result(self, run: str = RUN, secs: float = 40) -> Json:
        """Return the result of a run once it has one."""
        return wait_for_json(lambda: self.poll(run).get("result"), f"{run} has a result", secs)

    def folder(self, run: str = RUN) -> Path:
        return self.home / "runs" / "i1" / run

    @property
    def worktree(self) -> Path:
        return self.home / "work" / "i1" / "t-12"

    def mirror(self) -> Path:
        return next((self.home / "mirrors").glob("*.git"))

    def state(self, run: str = RUN) -> Json:
        return wait_for_json(lambda: read(self.folder(run) / "state.json"), f"{run} has a state")

    def agent_state(self, run: str = RUN) -> Json:
        """Return the state of a run once its agent has executed: the state is written a moment before."""

        def working_state() -> Json | None:
            state = self.state(run)
            return state if has_executed(state["agent_pid"]) else None

        return wait_for_json(working_state, f"the agent of {run} works")

    def log(self, name: str = "stdout.log", run: str = RUN) -> str:
        return (self.folder(run) / name).read_text()

    def first_output(self, run: str = RUN) -> str:
        """Return what an agent has printed, once it has printed something."""
        path = self.folder(run) / "stdout.log"
        return wait_until(lambda: path.exists() and path.read_text().strip(), f"the agent of {run} prints") or ""

    def release(self, **changes: Any) -> Json:
        request = {"run": RUN, "task": "t-12", "worktree": True, "repository": self.repository(), **changes}
        return self.ask("release", **request)

    def kill_all(self) -> None:
        """Leave no process behind, whatever a test did."""
        for path in self.home.glob("runs/*/*/state.json"):
            state = read(path) or {}
            for name in ("pid", "agent_pid", "check_pid"):
                if state.get(name) and works_below(self.place, state[name]):
                    with suppress(ProcessLookupError):
                        os.kill(state[name], signal.SIGKILL)
                        os.killpg(state[name], signal.SIGKILL)


def git(*words: str) -> str:
    author = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    done = subprocess.run(["git", *author, *words], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git("-C", str(folder), "add", "--all")
    git("-C", str(folder), "commit", "--quiet", "-m", message)


def push_by_other(host: Host, branch: str, name: str, start: str) -> None:
    """Push a commit with a file `name` from another clone."""
    clone = host.place / f"clone-{name}"
    git("clone", "--quiet", "--branch", start, str(host.forge), str(clone))
    (clone / name).write_text(name)
    commit(clone, f"someone's {name}")
    git("-C", str(clone), "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock as another process does."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(path: Path) -> Json | None:
    return json.loads(path.read_text()) if path.exists() else None


def wait_for_json(read: Callable[[], Json | None], what: str, seconds: float = 40) -> Json:
    """Return what `read` returns, once that is not None."""
    found = wait_until(read, what, seconds)
    assert found is not None
    return found


def parse_answer(answer: bytes) -> Json:
    """Parse an answer, and put the raw bytes of each log into its `data`."""
    line, _, raw = answer.partition(b"\n")
    parsed: Json = json.loads(line)
    assert parsed.pop("bytes") == len(raw)
    for run in parsed.get("runs", {}).values():
        for log in (run[name] for name in ("stdout", "stderr") if name in run):
            log["data"] = raw[log["at"] : log["at"] + log["length"]]
    return parsed


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_exit(pid: int) -> None:
    wait_until(lambda: not is_running(pid), f"process {pid} has ended")


def has_executed(pid: int | None) -> bool:
    """Return True if a process has become its own program; before that it is a copy of the supervisor."""
    try:
        return pid is not None and SUPERVISOR.name not in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True  # and has ended


def works_below(place: Path, pid: int) -> bool:
    """Return True if the pid still belongs to a process of the test."""
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink()).startswith(str(place))
    except OSError:
        return False

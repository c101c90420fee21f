"""The supervisor on the oldest Python that hosts may have, where one is found here: one life of a run, from start to release."""

import json
import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest

from tests.workers.supervisor.test_supervisor import SUPERVISOR
from workers import protocol

Json = protocol.Json
PYENV = "versions/3.8*/bin/python3.8"


@cache
def oldest() -> str | None:
    """A real Python 3.8: on PATH, or one of pyenv's."""
    homes = [os.environ.get("PYENV_ROOT"), _said("pyenv", "root"), str(Path.home() / ".pyenv")]
    of_pyenv = [path for home in homes if home and os.access(home, os.X_OK) for path in sorted(Path(home).glob(PYENV))]
    found = [shutil.which("python3.8"), *map(str, of_pyenv)]
    return next((path for path in found if path and (_said(path, "--version") or "").startswith("Python 3.8")), None)


def _said(*argv: str) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Served:
    """A supervisor that stays on the line, as a host's does."""

    def __init__(self, python: str, home: Path) -> None:
        argv = [python, "-I", "-S", str(SUPERVISOR), "serve"]
        self._about = {"home": str(home), "instance": "i1"}
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, verb: str, **request: object) -> Json:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(protocol.frame(verb, json.dumps(self._about | request).encode()))
        self._process.stdin.flush()
        answer = protocol.Answer(1 << 20)
        while not answer.is_whole:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            assert data, f"it died of {verb}"
            answer.feed(data)
        told = answer.told()
        assert "error" not in told, told
        return told

    def until_ended(self, run: str) -> Json:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            seen: Json = self.ask("poll", runs=[{"run": run}])["runs"][run]
            if seen["result"]:
                return seen
            time.sleep(0.02)
        raise AssertionError(f"{run} never ended")

    def end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._process.stdout.close()


def test_a_run_starts_speaks_is_cancelled_and_goes(tmp_path: Path) -> None:
    python = oldest()
    if python is None:
        pytest.skip("no Python 3.8 here: neither python3.8 on PATH nor one of pyenv's")
    served = Served(python, tmp_path / "fleet")
    assert served.ask("probe", clis={"sh": ["sh", "-c", "echo sh 1"]})["python"].startswith("3.8.")
    agent = {"argv": ["sh", "-c", "cat; printf '\\377\\n'"], "prompt": "hello "}
    begun = served.ask("start", run="t.1", task="t", agent=agent, validation=["true"], heartbeat_secs=0.2)
    assert begun["state"] == "started"
    seen = served.until_ended("t.1")
    assert (seen["result"]["end"], seen["stdout"]["data"]) == ("finished", b"hello \xff\n")
    served.ask("start", run="t.2", task="t", agent={"argv": ["sleep", "60"], "prompt": ""})
    assert served.ask("cancel", run="t.2", grace_secs=0.2)["state"] == "cancelling"
    assert served.until_ended("t.2")["result"]["end"] == "cancelled"
    for run in ("t.1", "t.2"):
        assert served.ask("release", run=run, task="t", worktree=run == "t.2")["released"]
    assert not list((tmp_path / "fleet" / "runs" / "i1").iterdir())
    served.end()

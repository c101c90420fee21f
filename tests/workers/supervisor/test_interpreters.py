"""Runs the bundle with each supported Python: a run is started, cancelled and released."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.patience import patient
from tests.workers.supervisor.host import SUPERVISOR, Json, wait_for_json
from workers import protocol

VERSIONS = [f"3.{minor}" for minor in range(8, 15)]


@cache
def find_python(version: str) -> str | None:
    """Return a program of this version: one on PATH, or one of pyenv's."""
    roots = [os.environ.get("PYENV_ROOT"), _output("pyenv", "root"), str(Path.home() / ".pyenv")]
    pattern = f"versions/{version}.*/bin/python{version}"
    of_pyenv = [path for root in roots if root and os.access(root, os.X_OK) for path in Path(root).glob(pattern)]
    found = [shutil.which(f"python{version}"), *map(str, sorted(of_pyenv))]
    wanted = f"Python {version}."
    return next((path for path in found if path and (_output(path, "--version") or "").startswith(wanted)), None)


def _output(*argv: str) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=patient(20))
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Session:
    """A supervisor that serves requests, as over SSH."""

    def __init__(self, python: str, home: Path) -> None:
        argv = [python, "-I", "-S", str(SUPERVISOR), "serve"]
        self._common = {"home": str(home), "instance": "i1"}
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, verb: str, **request: object) -> Json:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(protocol.frame(verb, json.dumps(self._common | request).encode()))
        self._process.stdin.flush()
        answer = protocol.Answer(1 << 20)
        while not answer.is_whole:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            assert data, f"it ended without an answer to {verb}"
            answer.feed(data)
        parsed = answer.as_json()
        assert "error" not in parsed, parsed
        return dict(parsed)

    def ended(self, run: str) -> Json:
        """Return the poll of a run once it has a result."""

        def poll() -> Json | None:
            found: Json = self.ask("poll", runs=[{"run": run}])["runs"][run]
            return found if found["result"] else None

        return wait_for_json(poll, f"{run} has ended")

    def end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        assert self._process.wait(patient(10)) == 0
        self._process.stdout.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_starts_prints_is_cancelled_and_released(tmp_path: Path, version: str) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version}: neither python{version} on PATH nor one of pyenv's")
    session = Session(python, tmp_path / "fleet")
    assert session.ask("probe", clis={"sh": ["sh", "-c", "echo sh 1"]})["python"].startswith(f"{version}.")
    agent = {"argv": ["sh", "-c", "cat; printf '\\377\\n'"], "prompt": "hello "}
    started = session.ask("start", run="t.1", task="t", agent=agent, validation=["true"], heartbeat_secs=0.2)
    assert started["state"] == "started"
    first = session.ended("t.1")
    assert (first["result"]["end"], first["stdout"]["data"]) == ("finished", b"hello \xff\n")
    session.ask("start", run="t.2", task="t", agent={"argv": ["sleep", "60"], "prompt": ""})
    assert session.ask("cancel", run="t.2", grace_secs=0.2)["state"] == "cancelling"
    assert session.ended("t.2")["result"]["end"] == "cancelled"
    for run in ("t.1", "t.2"):
        assert session.ask("release", run=run, task="t", worktree=run == "t.2")["released"]
    assert not list((tmp_path / "fleet" / "runs" / "i1").iterdir())
    session.end()

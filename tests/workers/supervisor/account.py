"""An ordinary account of a host: the kernel isolates its processes, but none of root."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import patient, wait_until
from tests.summary import had, lacks
from tests.workers.supervisor.host import SUPERVISOR, Json, parse_answer, read, wait_for_json

NOBODY = 65534
KEY = "key-of-another-cli"
ISOLATED = "CLIs that are kept apart"
INSPECT = "cat /proc/[0-9]*/environ > seen 2> /dev/null; ls /proc/$PPID/fd > mine 2>&1; env > own"


class User:
    """An account with the fleet's folder in its home."""

    def __init__(self, home: Path) -> None:
        self.home, self.python = home, sys.executable
        self.how: Json = {}
        self.request: Json = {}  # added to each start
        shutil.copy(SUPERVISOR, home / "supervisor.py")
        if os.geteuid() == 0:
            self.python, self.how = "/usr/bin/python3", {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(home, NOBODY, NOBODY)
            home.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a login."""
        path = f"{self.home}/.local/bin:/usr/local/bin:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(self.home), "SHELL": "/bin/sh"}

    def run(self, *argv: str) -> str:
        return str(subprocess.check_output(argv, cwd=self.home, env=self.env, text=True, **self.how))

    def add_program(self, program: str, script: str) -> None:
        """Put a program into the first folder of PATH, to which this user can write."""
        path = self.home / ".local" / "bin" / program
        self.run("mkdir", "-p", str(path.parent))
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def call(self, verb: str, **request: object) -> Json:
        argv = [self.python, "-I", "-S", str(self.home / "supervisor.py"), verb]
        text = json.dumps({"home": str(self.home / "fleet"), "instance": "i1", **request}).encode()
        how = {"cwd": self.home, "env": self.env, "stdout": subprocess.PIPE, **self.how}
        return parse_answer(subprocess.run(argv, input=text, check=False, **how).stdout)

    def start(self, run: str, script: str, *checks: str, hooks: Json | None = None, **agent: Any) -> None:
        given = {"argv": ["sh", "-c", script], "prompt": "", **agent}
        limits = {"wall_secs": patient(90), "grace_secs": 0.2}
        asked = {"run": f"{run}.1", "task": run, "limits": limits, "validation": checks, "hooks": hooks, "agent": given}
        answer = self.call("start", **asked, **self.request)
        assert answer.get("state") == "started", answer

    def workspace(self, run: str) -> Path:
        return self.home / "fleet" / "work" / "i1" / run

    def folder(self, run: str) -> Path:
        return self.home / "fleet" / "runs" / "i1" / f"{run}.1"

    def result(self, run: str, secs: float = 40) -> Json:
        return wait_for_json(lambda: read(self.folder(run) / "result.json"), f"{run} has a result", secs)

    def logs(self, run: str) -> list[str]:
        """Return the end of what its CLI printed on standard output and error."""
        return [(self.folder(run) / f"{name}.log").read_text()[-2000:] for name in ("stdout", "stderr")]

    def own_home(self) -> None:
        """Own what others put into its home, node_modules aside."""
        if os.geteuid() == 0:
            for path in self.home.rglob("*"):
                if "node_modules" not in path.parts:
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture
def user() -> Iterator[User]:
    with tempfile.TemporaryDirectory(prefix="fleet-apart-") as folder:
        user = User(Path(folder))
        if not os.access(user.python, os.X_OK):
            pytest.skip("there is no Python that every user may execute")
        yield user


@pytest.fixture
def delivering(user: User) -> User:
    """A user whose runs deliver, with a password."""
    user.run("git", "init", "--quiet", "--initial-branch=main", "seed")
    user.run("sh", "-c", "echo hello > seed/README; git -C seed add README")
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    user.run("git", "-C", "seed", *author, "commit", "--quiet", "-m", "first")
    user.run("git", "clone", "--quiet", "--bare", "seed", "forge.git")
    user.request = {
        "repository": {"url": f"file://{user.home}/forge.git", "base": "main", "branch": "task/1"},
        "credentials": {"username": "fleet", "password": "s3cret"},
        "delivery": {"message": "Fix it", "author_name": "Fleet", "author_email": "fleet@example.org"},
    }
    return user


@pytest.fixture
def isolating() -> None:
    """Skip where the kernel cannot isolate processes, and say which it is at the end of the suite."""
    kernel = os.uname().release
    if landlock_version() < 6:
        lacks(ISOLATED, f"this kernel cannot ({kernel}); Linux 6.12 and newer can")
    had(ISOLATED, f"CLIs were kept apart by Linux {kernel}")


def landlock_version() -> int:
    """Return the kernel's version of Landlock, negative without. From 6 on it isolates processes."""
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) if sys.platform == "linux" else -1


def inspected(user: User, *checks: str, script: str = INSPECT, **agent: Any) -> tuple[str, str]:
    """Run a CLI beside another that has a key. Return the environments that it saw, and its supervisor's files."""
    user.start("other", "touch works; until [ -e done ]; do sleep 0.05; done", env={"OTHER_KEY": KEY})
    wait_until((user.workspace("other") / "works").exists, "the other CLI works")
    user.start("mine", script, *checks, env={"MY_KEY": "key-of-mine"}, **agent)
    assert user.result("mine")["end"] == "finished"
    (user.workspace("other") / "done").touch()
    assert user.result("other")["end"] == "finished"
    place = user.workspace("mine")
    return (place / "seen").read_bytes().decode(errors="replace"), (place / "mine").read_text()

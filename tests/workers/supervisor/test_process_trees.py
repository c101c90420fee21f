"""Everything that an agent started is ended with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.workers.supervisor.account import NOBODY
from tests.workers.supervisor.host import RUN, SUPERVISOR, Host, Json, is_running, read, wait_for_json

# Leaves its session, its group, its environment and its parent.
STRAY = """import os, time
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/")
print(os.getpid(), flush=True)
os.execve("/bin/sleep", ["sleep", "60"], {})
"""


@pytest.fixture
def stray(host: Host) -> str:
    """The command of such a program."""
    (host.place / "stray.py").write_text(STRAY)
    return f"{sys.executable} {host.place}/stray.py"


def printed_pids(host: Host) -> list[int]:
    path = host.folder() / "stdout.log"
    return [int(line) for line in path.read_text().split() if line.isdigit()] if path.exists() else []


def wait_for_strays(host: Host, count: int = 1) -> None:
    wait_until(lambda: len(printed_pids(host)) == count, f"{count} strays have begun")


def test_a_cancel_ends_processes_that_left_session_and_environment(host: Host, stray: str) -> None:
    host.start(f"{stray}; {stray}; sleep 60")
    wait_for_strays(host, 2)
    host.ask("cancel", run=RUN, grace_secs=0.2)
    result = host.result()
    assert (result["end"], result["survivors"]) == ("cancelled", [])
    assert not any(is_running(pid) for pid in printed_pids(host))


def test_they_are_ended_before_the_validation(host: Host, stray: str) -> None:
    host.start(stray, validation=["true"])
    assert host.result()["end"] == "finished"
    assert not any(is_running(pid) for pid in printed_pids(host))


@pytest.fixture
def cgroups() -> Iterator[Path]:
    """The folder where cgroups can be made; those of the test are deleted after it."""
    roots = [
        path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if (path / "cgroup.procs").exists()
    ]
    root = next((path for path in roots if os.access(path, os.W_OK) and (path / "cgroup.controllers").exists()), None)
    if root is None:
        pytest.skip("this user may not make cgroups")
    yield root
    for left in root.glob("fleet-*t-12-1-*.scope"):
        wait_until(partial(is_empty, left), f"{left} is empty")
        left.rmdir()


def is_empty(cgroup: Path) -> bool:
    return not (cgroup / "cgroup.procs").read_text()


# Puts a process into a cgroup of its own, as StartTransientUnit of a user's systemd does.
BUSCTL = """#!/bin/sh
[ "$7" = StartTransientUnit ] || exit 9
name=$9; shift 14
mkdir "{cgroups}/$name" && echo "$1" > "{cgroups}/$name/cgroup.procs"
"""
# A user that lingers, seen by this process alone.
LINGERING = "mount -t tmpfs tmpfs /var/lib && mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/someone"


@pytest.fixture
def systemd(host: Host, cgroups: Path) -> dict[str, str]:
    """The environment of a user with a systemd."""
    tools, runtime = host.place / "tools", host.place / "xdg"
    for folder in (tools, runtime):
        folder.mkdir()
    (runtime / "bus").touch()
    (tools / "busctl").write_text(BUSCTL.format(cgroups=cgroups))
    (tools / "busctl").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(host.user_home), "USER": "someone", "XDG_RUNTIME_DIR": str(runtime)}


def test_in_a_scope_even_a_killed_supervisor_leaves_nothing_behind(
    host: Host, stray: str, systemd: dict[str, str]
) -> None:
    argv = ["unshare", "--mount", "sh", "-c", f'{LINGERING} && exec "$@"', "sh", sys.executable, "-I", "-S"]
    request = json.dumps(host.request(f"{stray}; sleep 60")).encode()
    started = subprocess.run(
        [*argv, str(SUPERVISOR), "start"], input=request, env=systemd, capture_output=True, check=False
    )
    if started.returncode:
        pytest.skip(f"this user may not mount: {started.stderr.decode()}")
    wait_for_strays(host)
    state = host.state()
    assert "/fleet-" in state["cgroup"] and "t-12-1-" in state["cgroup"]
    os.kill(state["pid"], signal.SIGKILL)
    assert host.result()["end"] == "lost"
    assert not any(is_running(pid) for pid in printed_pids(host))


class OrdinaryUser:
    """A user of the host who cannot end processes of root."""

    def __init__(self, host: Host) -> None:
        self.host, self.python = host, shutil.which("python3", path="/usr/bin:/bin")
        if os.getuid() != 0 or not self.python or not shutil.which("gcc"):
            pytest.skip("a program that an ordinary user cannot end takes root, gcc and /usr/bin/python3")
        for folder in (host.place, *host.place.parents[: -len(Path(tempfile.gettempdir()).parents)]):
            folder.chmod(folder.stat().st_mode | 0o011)
        for path in (host.place, host.user_home, Path(shutil.copy(SUPERVISOR, host.place))):
            os.chown(path, NOBODY, NOBODY)

    def call(self, verb: str, request: Json) -> None:
        argv = [self.python or "", "-I", "-S", str(self.host.place / SUPERVISOR.name), verb]
        ids: Json = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        subprocess.run(argv, input=json.dumps(request).encode(), cwd="/", env={"PATH": os.defpath}, check=True, **ids)

    def unkillable(self) -> Path:
        """Return a program that becomes root's when it is started."""
        source, path = self.host.place / "u.c", self.host.place / "unkillable"
        source.write_text("#include <unistd.h>\nint main(void) { setuid(0); return (int) sleep(60); }\n")
        subprocess.run(["gcc", "-o", str(path), str(source)], check=True)
        path.chmod(0o4755)
        return path


def test_a_process_that_no_signal_ends_is_reported(host: Host) -> None:
    user = OrdinaryUser(host)
    program = user.unkillable()
    script = f"{program} & echo $!; wait"
    user.call("start", host.request(script, limits={"grace_secs": 0.2}, agent={"apart": False}))
    pid = int(host.first_output())
    status = Path(f"/proc/{pid}/status")
    wait_until(lambda: status.read_text().split("Uid:")[1].split()[0] == "0", "the program is root's")
    user.call("cancel", {"home": str(host.home), "instance": "i1", "run": RUN, "grace_secs": 0.2})
    result = wait_for_json(lambda: read(host.folder() / "result.json"), "the run has a result", 60)
    assert result["end"] == "cancelled"
    assert result["survivors"] == [{"pid": pid, "command": str(program)}]
    os.kill(pid, signal.SIGKILL)

"""What a run may use of its host, and what is left of it there: disks that fill, trees of processes, a last word."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.workers.supervisor.test_supervisor import (
    SUPERVISOR,
    Host,
    Json,
    data,
    eventually,
    host,
    is_running,
    read,
    released,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["host"]  # the fixture

SMALL = {"log_head_bytes": 4000, "log_tail_bytes": 8000}
# Leaves its session, its group, its environment and its parent behind.
STRAY = """import os, time
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/")
print(os.getpid(), flush=True)
os.execve("/bin/sleep", ["sleep", "60"], {})
"""


def heard(host: Host, run: str = "t-12.1", name: str = "stdout", limit: int = 3000) -> list[tuple[int, bytes]]:
    """A log as whoever polls it hears it: pieces with their offsets, until there is no more."""
    pieces, at = [], 0
    for _ in range(100):
        log: Json = host.ask("poll", runs=[{"run": run, name: at}], limit=limit)["runs"][run][name]
        if log["data"]:
            pieces.append((log["offset"], data(log)))
        at = log["offset"] + len(data(log))
        if at >= log["size"]:
            return pieces
    raise AssertionError("the log has no end")


def strays(host: Host) -> list[int]:
    """The process numbers that the agent has printed so far."""
    path = host.folder() / "stdout.log"
    return [int(line) for line in path.read_text().split() if line.isdigit()] if path.exists() else []


# ---------------------------------------------------------------------------------------------------- log caps
def test_of_a_log_that_is_too_long_head_and_tail_are_kept_and_offsets_stay_true(host: Host) -> None:
    whole = b"".join(b"%d\n" % n for n in range(1, 20001))
    host.start("seq 1 20000", limits=SMALL)
    assert host.result()["logs"] == {"stdout": len(whole), "stderr": 0}
    on_disk = sum(path.stat().st_size for path in host.folder().glob("stdout.log*"))
    assert 12000 <= on_disk <= 4000 + 8000 * 9 // 8
    pieces = heard(host)
    assert b"".join(piece for _, piece in pieces[:2])[:4000] == whole[:4000]
    assert all(whole[at : at + len(piece)] == piece for at, piece in pieces)
    tail = b"".join(piece for at, piece in pieces if at >= 4000)
    assert len(tail) >= 8000 and whole.endswith(tail)


def test_whoever_listens_all_the_time_hears_all_of_a_long_log(host: Host) -> None:
    host.start("for n in $(seq 1 40); do seq $n $((n + 100)); sleep 0.01; done", limits=SMALL)
    said, at = b"", 0
    while True:
        seen = host.ask("poll", runs=[{"run": "t-12.1", "stdout": at}])["runs"]["t-12.1"]
        assert seen["stdout"]["offset"] >= at
        said, at = said + data(seen["stdout"]), seen["stdout"]["offset"] + len(data(seen["stdout"]))
        if seen["result"] and at >= seen["stdout"]["size"]:
            break
    expected = b"".join(b"%d\n" % k for n in range(1, 41) for k in range(n, n + 101))
    assert at == len(expected)
    assert said.startswith(expected[:4000]) and said.endswith(expected[-8000:])


def test_a_validation_that_prints_for_ever_fills_no_disk(host: Host) -> None:
    host.start("true", validation=["yes | head -c 3000000"], limits=SMALL)
    result = host.result()
    assert result["validation"][0]["exit_code"] == 0
    assert sum(path.stat().st_size for path in host.folder().glob("validate.log*")) <= 4000 + 8000 * 9 // 8


def test_much_output_goes_through_whole(host: Host) -> None:
    host.start("head -c 30000000 /dev/zero | tr '\\0' x")
    assert host.result(secs=40)["logs"]["stdout"] == 30_000_000
    assert (host.folder() / "stdout.log").stat().st_size == 30_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_costs_the_log_and_not_the_run(host: Host, small_disk: Path) -> None:
    host.home = small_disk / "fleet"
    host.start("head -c 3000000 /dev/zero | tr '\\0' x; echo the end")
    result = host.result()
    assert (result["end"], result["logs"]["stdout"]) == ("finished", 3_000_008)
    assert sum(len(piece) for _, piece in heard(host, limit=1 << 20)) < 1 << 20


def test_a_disk_that_others_filled_still_takes_a_result_that_says_so(host: Host, small_disk: Path) -> None:
    host.home = small_disk / "fleet"
    fill = f"head -c 2000000 /dev/zero > {small_disk}/filled 2>/dev/null; cat > more; exit 0"
    host.start(fill, agent={"prompt": "x" * 100_000})
    result = host.result()
    assert result["end"] in ("finished", "failed")
    if result["end"] == "failed":
        assert result["failure"] == "disk_full"
    assert json.loads((host.folder() / "result.json").read_text())["end"] == result["end"]


# ---------------------------------------------------------------------------------------------- trees of processes
def test_a_cancel_ends_children_that_left_session_and_environment(host: Host) -> None:
    (host.place / "stray.py").write_text(STRAY)
    host.start(f"{sys.executable} {host.place}/stray.py; {sys.executable} {host.place}/stray.py; sleep 60")
    eventually(lambda: len(strays(host)) == 2)
    host.ask("cancel", run="t-12.1", grace_secs=0.2)
    result = host.result()
    assert (result["end"], result["survivors"]) == ("cancelled", [])
    assert not any(is_running(pid) for pid in strays(host))


def test_what_the_agent_left_behind_is_ended_before_the_work_is_validated(host: Host) -> None:
    (host.place / "stray.py").write_text(STRAY)
    host.start(f"{sys.executable} {host.place}/stray.py", validation=["true"])
    assert host.result()["end"] == "finished"
    assert not any(is_running(pid) for pid in strays(host))


def test_a_dead_supervisors_agent_is_ended_with_all_below_it(host: Host) -> None:
    host.start("setsid sh -c 'echo $$; setsid env -i sleep 60 & exec env -i sleep 61' & sleep 60")
    state = host.working()
    eventually(lambda: strays(host))
    [leader] = strays(host)
    below = eventually(lambda: children(leader))
    os.kill(state["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["survivors"]) == ("lost", [])
    assert not any(is_running(pid) for pid in [leader, *below, state["agent_pid"]])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def cgroups() -> Iterator[Path]:
    """Where cgroups can be made; those of the test are gone after it."""
    roots = [
        path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if (path / "cgroup.procs").exists()
    ]
    root = next((path for path in roots if os.access(path, os.W_OK) and (path / "cgroup.controllers").exists()), None)
    if root is None:
        pytest.skip("this user may not make cgroups")
    yield root
    for left in root.glob("fleet-*t-12-1-*.scope"):
        eventually(partial(is_empty, left))
        left.rmdir()


def is_empty(cgroup: Path) -> bool:
    return not (cgroup / "cgroup.procs").read_text()


def test_in_a_scope_of_its_own_even_a_dead_supervisor_leaves_nothing_behind(host: Host, cgroups: Path) -> None:
    linger, tools = host.place / "linger", host.place / "tools"
    for folder in (linger, tools, host.place / "xdg"):
        folder.mkdir()
    for path in (linger / "somebody", host.place / "xdg" / "bus"):
        path.touch()
    (tools / "busctl").write_text(a_systemd(cgroups))
    (tools / "busctl").chmod(0o755)
    supervisor = host.place / "supervisor.py"
    supervisor.write_text(SUPERVISOR.read_text().replace("/var/lib/systemd/linger", str(linger)))
    (host.place / "stray.py").write_text(STRAY)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(host.user_home), "USER": "somebody",
           "XDG_RUNTIME_DIR": str(host.place / "xdg")}  # fmt: skip
    wish = host.wish(f"{sys.executable} {host.place}/stray.py; sleep 60")
    argv = [sys.executable, "-I", "-S", str(supervisor), "start"]
    subprocess.run(argv, input=json.dumps(wish).encode(), env=env, check=True, capture_output=True)
    eventually(lambda: strays(host))
    state = host.state()
    assert "/fleet-" in state["cgroup"] and "t-12-1-" in state["cgroup"]
    os.kill(state["pid"], signal.SIGKILL)
    assert host.result()["end"] == "lost"
    assert not any(is_running(pid) for pid in strays(host))


def a_systemd(cgroups: Path) -> str:
    """A stand-in for a user's systemd: puts a process into a cgroup of its own, as StartTransientUnit does."""
    return f"""#!/bin/sh
[ "$7" = StartTransientUnit ] || exit 9
name=$9; shift 14
mkdir "{cgroups}/$name" && echo "$1" > "{cgroups}/$name/cgroup.procs"
"""


class Nobody:
    """An ordinary user of the host, for whom root's processes cannot be ended."""

    def __init__(self, host: Host) -> None:
        self.host, self.python = host, shutil.which("python3", path="/usr/bin:/bin")
        if os.getuid() != 0 or not self.python or not shutil.which("gcc"):
            pytest.skip(
                "only root can make a program that an ordinary user cannot end; it takes gcc and /usr/bin/python3"
            )
        for folder in (host.place, *host.place.parents[: -len(Path(tempfile.gettempdir()).parents)]):
            folder.chmod(folder.stat().st_mode | 0o011)
        for path in (host.place, host.user_home, Path(shutil.copy(SUPERVISOR, host.place))):
            os.chown(path, 65534, 65534)

    def call(self, verb: str, request: Json) -> None:
        argv = [self.python or "", "-I", "-S", str(self.host.place / SUPERVISOR.name), verb]
        ids: Json = {"user": 65534, "group": 65534, "extra_groups": []}
        subprocess.run(argv, input=json.dumps(request).encode(), cwd="/", env={"PATH": os.defpath}, check=True, **ids)

    def unkillable(self) -> Path:
        """A program that becomes root's when it is started."""
        source, path = self.host.place / "u.c", self.host.place / "unkillable"
        source.write_text("#include <unistd.h>\nint main(void) { setuid(0); return (int) sleep(60); }\n")
        subprocess.run(["gcc", "-o", str(path), str(source)], check=True)
        path.chmod(0o4755)
        return path


def test_what_no_signal_ends_is_reported(host: Host) -> None:
    nobody = Nobody(host)
    program = nobody.unkillable()
    script = f"{program} & echo $!; wait"
    nobody.call("start", host.wish(script, limits={"grace_secs": 0.2}, agent={"apart": False}))
    pid = int(eventually(lambda: (host.folder() / "stdout.log").exists() and host.said().strip()))
    eventually(lambda: Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0] == "0")
    nobody.call("cancel", {"home": str(host.home), "instance": "i1", "run": "t-12.1", "grace_secs": 0.2})
    result = eventually(lambda: read(host.folder() / "result.json"), secs=30)
    assert result["end"] == "cancelled"
    assert result["survivors"] == [{"pid": pid, "command": str(program)}]
    os.kill(pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------------------- a last word
FINAL = {"final": ["turn.completed", "result"]}
DONE = '{"type": "turn.completed", "usage": {}}'


def test_a_cli_that_said_its_last_word_and_does_not_exit_is_ended_and_counts_as_finished(host: Host) -> None:
    agent = {"argv": ["sh", "-c", f"echo x > new; echo '{DONE}'; echo bye; sleep 60"], **FINAL}
    host.on_forge(agent=agent, limits={"final_secs": 0.3})
    result = host.result()
    assert (result["end"], result["hung"], result["signal"], result["pushed"]) == ("finished", True, 15, True)


def test_a_cli_that_goes_on_after_its_last_word_is_left_to_work(host: Host) -> None:
    script = f"printf '%s\\n' '{DONE}' '{{\"type\": \"turn.started\"}}'; sleep 1.2; exit 3"
    host.start(agent={"argv": ["sh", "-c", script], **FINAL}, limits={"final_secs": 0.2})
    result = host.result()
    assert (result["end"], result["exit_code"], result["hung"]) == ("failed", 3, False)


def test_the_word_alone_is_no_last_word(host: Host) -> None:
    script = 'echo \'{"type": "item", "text": "turn.completed"}\'; sleep 1.2; exit 4'
    host.start(agent={"argv": ["sh", "-c", script], **FINAL}, limits={"final_secs": 0.2})
    assert host.result()["exit_code"] == 4


# -------------------------------------------------------------------------------------------------- what is told
def test_a_run_lost_while_it_delivered_says_which_commit_it_was_about_to_push(host: Host) -> None:
    host.make_forge()
    slow = host.forge / "hooks" / "pre-receive"
    slow.write_text(f"#!/bin/sh\ntouch {host.place}/pushing\nsleep 2\n")
    slow.chmod(0o755)
    host.on_forge("echo one > file", validation=["true"])
    eventually((host.place / "pushing").exists)
    os.kill(host.state()["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["step"], result["pushed"]) == ("lost", "deliver", False)
    assert [check["exit_code"] for check in result["validation"]] == [0]
    head = eventually(lambda: host.forge_git("for-each-ref", "--format=%(objectname)", "refs/heads/task"))
    assert head == result["head"]


def test_a_poll_tells_how_much_disk_is_free(host: Host) -> None:
    assert host.ask("poll", runs=[])["disk_free"] > 0


def test_released_runs_leave_no_piece_of_a_log(host: Host) -> None:
    host.start("seq 1 20000", limits=SMALL)
    host.result()
    released(host, repository=None)
    assert not host.folder().exists()


def test_it_is_understood_by_python_3_8() -> None:
    tree = ast.parse(SUPERVISOR.read_text(), feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported <= {*sys.stdlib_module_names}
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and any(k.arg == "strict" for k in node.keywords)
    ]

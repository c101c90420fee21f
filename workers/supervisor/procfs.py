"""Finds processes and facts about this host in /proc; without one, by signals alone."""

from __future__ import annotations

import os

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import read_bytes

if TYPE_CHECKING:
    from workers.supervisor.constants import Json

CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def boot_id() -> str | None:
    """Return what the kernel calls this boot."""
    content = read_bytes("/proc/sys/kernel/random/boot_id")
    return None if content is None else content.decode().strip()


def available_memory() -> int | None:
    """Return the free memory in bytes."""
    lines = (read_bytes("/proc/meminfo") or b"").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"MemAvailable:")), None)


def read_stat(pid: int) -> list[bytes]:
    """Return /proc/<pid>/stat from its third field on: state, parent, group, session ... start time at [19]."""
    return (read_bytes(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()


def list_processes() -> list[tuple[int, list[bytes]]]:
    """Return pid and stat of each process."""
    if not os.path.exists("/proc/self/stat"):
        return []
    found = [(int(pid), read_stat(int(pid))) for pid in os.listdir("/proc") if pid.isdigit()]
    return [(pid, stat) for pid, stat in found if stat]


def descendants(ancestors: list[int]) -> list[int]:
    """Return the living processes below these and these themselves; without /proc, none."""
    children: dict[int, list[int]] = {}
    for pid, stat in list_processes():
        children.setdefault(int(stat[1]), []).append(pid)
    found, rest = [], list(ancestors)
    while rest:
        pid = rest.pop()
        found.append(pid)
        rest += children.pop(pid, [])
    return [pid for pid in found if (read_stat(pid) or [b"Z"])[0] != b"Z"]


def session_members(session: int) -> list[int]:
    """Return the living processes of a session or group. A shell's jobs leave the group but not the session."""
    if not os.path.exists("/proc/self/stat"):
        try:
            os.kill(-session, 0)
            return [-session]
        except OSError:
            return []
    wanted = str(session).encode()
    return [pid for pid, stat in list_processes() if wanted in stat[2:4] and stat[0] != b"Z"]


def cgroup_members(cgroup: str | None) -> list[int]:
    """Return the processes of a cgroup that a supervisor created for itself."""
    if not cgroup or not cgroup.endswith(".scope") or "/fleet-" not in cgroup:
        return []
    found = [read_bytes(f"{root}{cgroup}/cgroup.procs") or b"" for root in CGROUP_ROOTS]
    return [int(pid) for pids in found for pid in pids.split()]


def marked_processes(variable: bytes) -> list[int]:
    """Return the processes that have this `NAME=value` in their environment."""
    pids = filter(str.isdigit, os.listdir("/proc"))
    return [int(pid) for pid in pids if variable in (read_bytes(f"/proc/{pid}/environ") or b"").split(b"\0")]


def describe_process(pid: int) -> Json:
    """Return pid and command line, for a person who looks for the process."""
    words = (read_bytes(f"/proc/{pid}/cmdline") or b"").split(b"\0")
    return {"pid": pid, "command": b" ".join(words).decode("utf-8", "replace").strip()[:200]}


def start_time(pid: int) -> int | None:
    """Return when a living process started, in clock ticks since the boot."""
    stat = read_stat(pid)
    return int(stat[19]) if stat and stat[0] != b"Z" else None


def is_alive(state: Json | None) -> bool:
    """Return True if the process that wrote this state lives: same boot, same pid, same start time."""
    if not state or state.get("boot_id") != boot_id():
        return False
    if state.get("pid_start") is not None:
        return bool(start_time(state["pid"]) == state["pid_start"])
    return _exists(state["pid"])


def is_hidden(pid: int) -> bool:
    """Return True if a process of this user exists that /proc does not show: hidepid hides non-dumpable ones."""
    return _exists(pid) and not read_stat(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False


def is_child_running(pid: int) -> bool:
    """Return True if a child of this process runs. /proc is not needed."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def send_signal(number: int, pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass

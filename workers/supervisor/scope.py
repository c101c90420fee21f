"""Moves a supervisor into a systemd scope, so that a later process finds all that it started."""

from __future__ import annotations

import os
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import read_bytes
from workers.supervisor.processes import Child
from workers.supervisor.programs import base_environment
from workers.supervisor.watch import timeout_after

if TYPE_CHECKING:
    from workers.supervisor.watch import Watch

LINGERING = "/var/lib/systemd/linger"  # one file for each user whose systemd runs on after the logout
SCOPE_SECS = 2
START_SCOPE = ("busctl", "--user", "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
               "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))")  # fmt: skip


def enter_scope(watch: Watch, name: str) -> str | None:
    """Ask the user's systemd for a scope with this process and all that it will start. Return its cgroup.

    None if that is not possible. Without lingering the scope, and the run, would end with the user's last session.
    """
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if not (os.path.exists(folder + "/bus") and os.path.exists(f"{LINGERING}/{os.environ.get('USER') or 'root'}")):
        return None
    argv = [*START_SCOPE, name, "fail", "1", "PIDs", "au", "1", str(os.getpid()), "0"]
    files = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    child = Child(argv, {**base_environment(), "XDG_RUNTIME_DIR": folder}, "/", files)
    try:
        child.start()
    except OSError:
        return None
    until = time.monotonic() + SCOPE_SECS
    watch.wait_for_end(child, lambda: timeout_after(until), lambda: 0.5)
    while child.exit_code == 0 and time.monotonic() < until:
        cgroup = (read_bytes("/proc/self/cgroup") or b"").rpartition(b"0::")[2].decode().strip()
        if cgroup.endswith("/" + name):
            return cgroup
        watch.wait(0.02)
    return None

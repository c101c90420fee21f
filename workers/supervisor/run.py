"""Reads and writes the folder of a run, which is the truth about the run."""

from __future__ import annotations

import json
import os
import signal
import time

from workers.supervisor.constants import ABANDONED_SECS, TYPE_CHECKING, WAIT_SECS
from workers.supervisor.files import (
    Lock,
    fleet_folder,
    folder_name,
    make_folder,
    read_bytes,
    remove_file,
    replace_file,
)
from workers.supervisor.procfs import (
    boot_id,
    cgroup_members,
    descendants,
    describe_process,
    is_alive,
    is_hidden,
    marked_processes,
    send_signal,
    session_members,
    start_time,
)

if TYPE_CHECKING:
    from typing import Any

    from workers.supervisor.constants import Json


class Run:
    """One run's folder, runs/<instance>/<run>/."""

    def __init__(self, base: str, instance: str, name: str) -> None:
        self.base, self.name = base, name
        self.path = os.path.join(base, "runs", instance, name)
        self._lock = Lock(self.file("lock"))

    @classmethod
    def of(cls, request: Json) -> Run:
        return cls(fleet_folder(request), request["instance"], request["run"])

    @property
    def id(self) -> str:
        """The name of the run among all on this host, of every instance and folder."""
        return folder_name(self.path)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def read(self, name: str) -> Json | None:
        """Return the JSON object in a file; None if there is none that can be read."""
        try:
            with open(self.file(name), "rb") as file:
                content = json.load(file)
                return content if isinstance(content, dict) else None
        except (OSError, ValueError):
            return None

    def write(self, name: str, content: Json, durable: bool = False) -> None:
        replace_file(self.file(name), json.dumps(content).encode(), durable=durable)

    def lock(self) -> bool:
        return self._lock.acquire()

    def unlock(self) -> None:
        self._lock.release()

    def has_begun(self) -> bool:
        """Return True if state or result exists, even one that a power failure cut short."""
        return os.path.exists(self.file("state.json")) or os.path.exists(self.file("result.json"))

    def claim(self) -> bool:
        """Return True in the one process that may start the run: it made the folder, or the one that did has died."""
        made = make_folder(self.path)
        return (made or self._age() > ABANDONED_SECS) and self.lock() and not self.has_begun()

    def _age(self) -> float:
        try:
            return time.time() - os.path.getmtime(self.path)
        except FileNotFoundError:  # deleted by a start that failed
            return 0

    def summary(self) -> Json:
        """Return what a poll answers about the run, its logs aside."""
        result, state = self.find_result(), self.read("state.json")
        if not self.has_begun():
            return {"known": False}
        state = state or {}
        return {"known": True, "step": state.get("step"), "beat_age": self._beat_age(),
                "agent_started_at": state.get("agent_started_at"), "result": result,
                "noted": None if result else self.session_note()}  # fmt: skip

    def session_note(self) -> str | None:
        """Return the newest line of the CLI's session file, see session_notes."""
        note = read_bytes(self.file("noted"))
        return note.decode("utf-8", "replace") if note else None

    def _beat_age(self) -> float | None:
        try:
            return max(0.0, time.time() - os.path.getmtime(self.file("heartbeat")))
        except OSError:
            return None

    def is_supervised(self, state: Json) -> bool:
        """Return True if the supervisor that wrote this state lives.

        If /proc hides it, its lock on the run decides: another process may have its pid by now.
        """
        may_be_hidden = state.get("boot_id") == boot_id() and is_hidden(state["pid"])
        return is_alive(state) or (may_be_hidden and not self.lock())

    def find_result(self) -> Json | None:
        """Return the run's result; None while it works. A run whose supervisor died gets the result `lost` here."""
        result = self.read("result.json")
        if result or not self.has_begun() or is_alive(self.read("state.json")) or not self.lock():
            return result
        try:  # the lock is ours, so no supervisor lives; it may have written its result just before it ended
            return self.read("result.json") or self._lose(self.read("state.json") or {})
        finally:
            self.unlock()

    def _lose(self, state: Json) -> Json:
        reason, survivors = "the host was rebooted", []
        if state.get("boot_id") == boot_id():
            reason = "the supervisor died"
            if state.get("pid") and start_time(state["pid"]):
                reason += ", and its process number is another program's now"
            survivors = _kill_leftovers(self, state)
        if state.get("step") == "deliver":
            reason += " while it was delivering: check the branch on the forge before the task is run again"
        known = {key: state[key] for key in ("step", "started_at", "base", "head", "validation") if key in state}
        result = new_result(self.name, "lost", reason, survivors=survivors, noted=self.session_note(), **known)
        remove_file(self.file("reserve"))
        try:
            self.write("result.json", result, durable=True)
        except OSError:  # the next poll writes it again; this caller gets it in any case
            pass
        return result


def new_result(run: str, end: str, reason: str | None, **known: Any) -> Json:
    """Return the content of result.json; fields without a known value are empty."""
    now = time.time()
    empty: Json = {
        "run": run, "end": end, "step": None, "reason": reason, "exit_code": None, "signal": None,
        "started_at": now, "ended_at": now, "steps": [], "validation": [],
        "base": None, "head": None, "commits": [], "changed": False, "pushed": False,
        "failure": None, "hung": False, "survivors": [], "logs": {}, "noted": None, "lfs": False,
        "warnings": [],
    }  # fmt: skip
    return {**empty, **known}


def _kill_leftovers(run: Run, state: Json) -> list[Json]:
    """Kill the processes that a dead supervisor left behind. Return those that live on."""
    until = time.monotonic() + WAIT_SECS
    while (left := _leftovers(run, state)) and time.monotonic() < until:
        send_signal(signal.SIGKILL, left)
        time.sleep(0.02)
    return [describe_process(pid) for pid in left]


def _leftovers(run: Run, state: Json) -> list[int]:
    """Find the processes of a run by session, cgroup, and FLEET_RUN_ID in their environment, and all below them.

    A session counts only if its leader's pid was not used again. Only a process that left all of these is missed.
    """
    sessions = [state[who + "_pid"] for who in ("agent", "check") if state.get(who + "_pid")
                and start_time(state[who + "_pid"]) in (None, state.get(who + "_start"))]  # fmt: skip
    found = [pid for session in sessions for pid in session_members(session)] + cgroup_members(state.get("cgroup"))
    if os.path.exists("/proc/self/environ"):
        found = descendants(found + marked_processes(b"FLEET_RUN_ID=" + os.fsencode(run.id)))
    return [pid for pid in {*found} if pid != os.getpid()]

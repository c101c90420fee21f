"""Answers the five requests: start, poll, cancel, release and probe."""

from __future__ import annotations

import os
import signal
import sys
import time

from workers.supervisor.constants import LIMITS, STREAMS, TYPE_CHECKING, WAIT_SECS
from workers.supervisor.errors import Refused
from workers.supervisor.files import Lock, delete_folder, free_disk, make_folder
from workers.supervisor.isolation import can_isolate
from workers.supervisor.launch import launch_supervisor
from workers.supervisor.logs import next_piece, read_pieces
from workers.supervisor.procfs import available_memory, boot_id
from workers.supervisor.programs import base_environment, find_program, has_program, is_installed, trusted_path
from workers.supervisor.run import Run, new_result
from workers.supervisor.salvage import delete_workspace
from workers.supervisor.versions import ask_versions
from workers.supervisor.watch import Watch
from workers.supervisor.worktree import open_workspace, workspace_lock

if TYPE_CHECKING:
    from workers.supervisor.constants import Json


def start(request: Json) -> Json:
    """Create the run's folder and leave its supervisor behind. A repeated start changes nothing."""
    run, until = Run.of(request), time.monotonic() + WAIT_SECS
    while not run.has_begun():
        if run.claim():
            return {"run": run.name, "state": "started", "pid": launch_supervisor(run, request)}
        if time.monotonic() > until:
            raise Refused(f"another process is still starting run {run.name}: poll it, or start it again")
        time.sleep(0.02)
    state, result = run.read("state.json"), run.read("result.json")
    was_cancelled = result is not None and state is None
    return {"run": run.name, "state": "cancelled" if was_cancelled else "known", "pid": (state or {}).get("pid")}


def poll(request: Json) -> Json:
    """Return the state of the given runs and what their logs have grown by since the given offsets.

    Of each log `length` raw bytes follow the answer, the first of them `at` bytes after its line. `offset` is their
    place in the log: continue at offset + length. If it is greater than the requested offset, the bytes between were
    deleted. `limit` bounds the raw bytes of all logs together.
    """
    answers: Json = {}
    logs: list[tuple[int, str, int, Json]] = []
    for asked in request["runs"]:
        run = Run.of({**request, **asked})
        # The result is read before the logs: a log does not grow after it was written.
        answer = answers[run.name] = run.summary()
        for name in STREAMS if answer["known"] else ():
            sizes = (answer["result"] or {}).get("logs") or {}
            path, begin, end = next_piece(run.file(name + ".log"), asked.get(name) or 0, sizes.get(name, 0))
            answer[name] = {"offset": begin, "size": end, "at": 0, "length": 0}
            logs.append((max(0, end - begin), path, begin, answer[name]))
    raw = read_pieces(logs, request.get("limit") or 262144)
    return {"now": time.time(), "boot_id": boot_id(), "disk_free": free_disk(request), "runs": answers, "raw": raw}


def cancel(request: Json) -> Json:
    """End a run. An unknown one gets a result at once, so that a late start is refused."""
    run, until = Run.of(request), time.monotonic() + WAIT_SECS
    make_folder(run.path)
    while time.monotonic() < until:
        if run.find_result():
            return {"run": run.name, "state": "ended"}
        state = run.read("state.json")
        if state and run.is_supervised(state):
            run.write("cancel.json", {"grace_secs": request.get("grace_secs", LIMITS["grace_secs"])})
            os.kill(state["pid"], signal.SIGTERM)
            return {"run": run.name, "state": "cancelling"}
        if run.lock() and not run.has_begun():
            tombstone = new_result(run.name, "cancelled", "it was cancelled before it was started")
            run.write("result.json", tombstone, durable=True)
            return {"run": run.name, "state": "unknown"}
        time.sleep(0.02)
    raise Refused(f"a process that does not answer holds run {run.name}: inspect it on the host")


def release(request: Json) -> Json:
    """Delete an ended run, and with `worktree` the task's folder after its work is on the forge or saved."""
    run = Run.of(request)
    make_folder(run.path)
    if (run.has_begun() and not run.find_result()) or not run.lock():
        raise Refused(f"run {run.name} is still going: cancel it and wait for its result first")
    saved = None
    if request.get("worktree"):
        watch = Watch()
        with Lock(workspace_lock(request)) as lock:
            if not watch.acquire(lock, WAIT_SECS):
                raise Refused(f"another run works on task {request['task']}: end that one first")
            saved = delete_workspace(open_workspace(request, run, watch, LIMITS))
            os.unlink(lock.path)
    delete_folder(run.path)
    return {"released": True, "saved": saved}


def probe(request: Json) -> Json:
    """Return what this host is and has, before it is given work."""
    clis = request.get("clis", {})
    path = trusted_path(base_environment()["PATH"], "git", "git-lfs")
    git = find_program("git", path) if has_program(path, "git") else "git"
    versions = ask_versions({**clis, " git": [git, "--version"]})
    return {
        "now": time.time(), "boot_id": boot_id(), "python": ".".join(map(str, sys.version_info[:3])),
        "git": versions.pop(" git"), "disk_free": free_disk(request), "cpus": os.cpu_count(),
        "memory_available": available_memory(), "load": list(os.getloadavg()), "clis": versions,
        "missing": sorted(name for name, argv in clis.items() if not is_installed(argv[0])),
        "lfs": is_installed("git-lfs"), "apart": can_isolate(),
    }  # fmt: skip


VERBS = {"start": start, "poll": poll, "cancel": cancel, "release": release, "probe": probe}

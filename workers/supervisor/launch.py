"""Starts the supervisor of a run as a process that is detached from its caller."""

from __future__ import annotations

import os
import sys

from workers.supervisor.constants import RESERVE_BYTES, TYPE_CHECKING
from workers.supervisor.errors import Refused
from workers.supervisor.files import delete_folder, open_log, replace_file
from workers.supervisor.steps import Supervisor

if TYPE_CHECKING:
    from typing import NoReturn

    from workers.supervisor.constants import Json
    from workers.supervisor.run import Run


def launch_supervisor(run: Run, request: Json) -> int:
    """Detach a supervisor, and return its pid once it has begun. If it cannot begin, the run's folder is deleted."""
    try:
        run.write("spec.json", without_secrets(request))
        replace_file(run.file("prompt.txt"), request["agent"]["prompt"].encode("utf-8", "replace"))
        replace_file(run.file("reserve"), bytes(RESERVE_BYTES))
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            _detach(run, request, write_end)
        os.close(write_end)
        os.wait()
        with open(read_end, "rb") as pipe:
            answer = pipe.read().decode()
        if not answer.isdigit():
            raise Refused(f"run {run.name} could not begin: {answer or 'it died'}; fix that, then start it again")
        return int(answer)
    except (OSError, Refused):
        delete_folder(run.path)
        raise


def without_secrets(request: Json) -> Json:
    """Return the request as it may be written to disk: no credentials, only the names of the agent's variables."""
    agent = {**request["agent"], "env": sorted(request["agent"].get("env") or {})}
    del agent["prompt"]
    return {**{key: value for key, value in request.items() if key != "credentials"}, "agent": agent}


def _detach(run: Run, request: Json, answer: int) -> NoReturn:
    """Supervise the run in a new session. Write the pid, or why it cannot begin, to `answer`."""
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        os.chdir(run.path)
        null, log = os.open(os.devnull, os.O_RDWR), open_log("supervisor.log")
        for fd, number in ((null, 0), (null, 1), (log, 2)):
            os.dup2(fd, number)
        supervisor = Supervisor(run, request)
        supervisor.begin()
        os.write(answer, str(os.getpid()).encode())
        os.close(answer)
        supervisor.supervise()
    except OSError as error:
        _write_error(answer, error)
        sys.excepthook(*sys.exc_info())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _write_error(answer: int, error: OSError) -> None:
    try:
        os.write(answer, str(error).encode())
    except OSError:  # closed: the run has begun
        pass

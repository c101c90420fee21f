"""Runs the repository's own commands: its validation, and its hooks around each step."""

from __future__ import annotations

import os
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.logs import Log
from workers.supervisor.processes import Child
from workers.supervisor.procfs import start_time
from workers.supervisor.programs import base_environment
from workers.supervisor.watch import timeout_after

if TYPE_CHECKING:
    from workers.supervisor.constants import Json
    from workers.supervisor.execution import Execution


def run_validation(job: Execution) -> bool:
    """Run the validation commands until one fails. Return False if one failed; its reason is in the result."""
    until, log = time.monotonic() + job.limits["validation_secs"], Log("validate.log", job.limits)
    job.state["validation"] = job.result["validation"]
    for command in job.request.get("validation") or []:
        outcome = _run_command(job, command, log, until, job.workspace.path)
        job.result["validation"].append(outcome)
        if outcome["exit_code"] != 0:
            hint = job.privilege_hint("checks_apart", outcome["tail"].encode())
            job.result["reason"] = f"validation failed: `{command}` ended with {outcome['exit_code']}{hint}"
            return False
    return True


def run_hooks(job: Execution, moment: str) -> None:
    """Run the hooks of a moment, such as `before_agent`, until one fails. They get no credential.

    They run in the workspace; before there is one, in the run's folder. Raises RunEnded if one fails, since what it
    prepares or checks is missing. After the delivery a failure is only a warning.
    """
    commands = (job.request.get("hooks") or {}).get(moment) or []
    if not commands:
        return
    log, cwd = Log("hooks.log", job.limits), job.run.path if moment == "before_prepare" else job.workspace.path
    for command in commands:
        until = time.monotonic() + job.limits["hook_secs"]
        outcome = {"hook": moment, **_run_command(job, command, log, until, cwd)}
        job.result.setdefault("hooks", []).append(outcome)
        if outcome["exit_code"] != 0:
            reason = f"hook {moment} `{command}` ended with {outcome['exit_code']}: {outcome['tail'][-1000:].rstrip()}"
            reason += job.privilege_hint("checks_apart", outcome["tail"].encode())
            if moment != "after_deliver":
                raise RunEnded("failed", reason, "hook_failed")
            job.result["warnings"].append(reason)
            break


def _run_command(job: Execution, command: str, log: Log, until: float, cwd: str) -> Json:
    """Run a shell command. Return its outcome as the result has it; 124 is the exit code after a timeout."""
    began, log.end = time.monotonic(), b""
    pipe = job.watch.pipe_to(log)
    files = [os.open(os.devnull, os.O_RDONLY), pipe, os.dup(pipe)]
    env = {**base_environment(), **job.run_variables()}
    child = Child(["sh", "-c", command], env, cwd, files, job.is_isolated("checks_apart"))
    job.state.update(check_pid=child.pid, check_start=start_time(child.pid))
    job.save_state()
    job.start(child, "the shell")
    reason = job.watch.wait_for_end(child, lambda: job.watch.stop_reason or timeout_after(until), job.grace)
    job.watch.close_pipes()
    job.watch.raise_if_cancelled()
    code = 124 if reason else 128 + child.signal if child.signal else child.exit_code
    return {"command": command, "exit_code": code, "seconds": round(time.monotonic() - began, 3),
            "tail": log.end.decode("utf-8", "replace")}  # fmt: skip

"""Runs the agent's CLI and ends it at its limits."""

from __future__ import annotations

import os
import time

from workers.supervisor.constants import END_REASONS, STREAMS, TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.logs import FinalEvent, Log
from workers.supervisor.processes import Child
from workers.supervisor.procfs import start_time
from workers.supervisor.programs import base_environment, fill_placeholders
from workers.supervisor.session_notes import SessionNotes
from workers.supervisor.versions import argv_with_flags, path_with

if TYPE_CHECKING:
    from typing import Callable

    from workers.supervisor.constants import Json
    from workers.supervisor.execution import Execution


def run_agent(job: Execution) -> None:
    """Run the CLI with the prompt until it exits. Raises RunEnded if it failed or had to be ended."""
    final_event = FinalEvent(job.request["agent"].get("final") or ())
    logs = [Log("stdout.log", job.limits, final_event), Log("stderr.log", job.limits)]
    child = _hold_agent(job, logs)
    _start_agent(job, child)
    notes = SessionNotes(job.run, job.request["agent"], child.env, job.state["agent_started_at"])
    reason = job.watch.wait_for_end(child, AgentLimits(job, logs, final_event, notes).check, job.grace)
    job.watch.close_pipes()
    job.result.update(exit_code=child.exit_code, signal=child.signal, hung=reason == "hung", noted=notes.newest(),
                      logs={name: log.size for name, log in zip(STREAMS, logs)})  # fmt: skip
    if reason and reason != "hung":
        raise RunEnded(reason, END_REASONS[reason].format(**job.limits))
    if child.exit_code != 0 and not reason:
        hint = job.privilege_hint("apart", b"".join(log.end for log in logs))
        raise RunEnded("failed", f"the CLI '{child.argv[0]}' {child.describe_end()}: read the end of its logs{hint}")


def _hold_agent(job: Execution, logs: list[Log]) -> Child:
    """Return the CLI, held before its first instruction."""
    agent: Json = job.request["agent"]
    values = {
        "{workdir}": job.workspace.path, "{run}": job.run.path, "{home}": os.path.expanduser("~"),
        "{prompt_file}": job.run.file("prompt.txt"), "{task}": job.request["task"],
    }  # fmt: skip
    isolated = job.is_isolated("apart")
    argv = [fill_placeholders(word, values) for word in argv_with_flags(agent, isolated)]
    own = {name: fill_placeholders(value, values) for name, value in (agent.get("env") or {}).items()}
    env = {**base_environment(), **own, **job.run_variables()}
    env["PATH"] = path_with(argv[0], env["PATH"])
    prompt = os.devnull if agent.get("prompt_via") == "file" else "prompt.txt"
    files = [os.open(prompt, os.O_RDONLY), *map(job.watch.pipe_to, logs)]
    return Child(argv, env, job.workspace.path, files, isolated)


def _start_agent(job: Execution, child: Child) -> None:
    """Write the CLI's pid to state.json, then let it run: no process may exist without a record."""
    job.state.update(agent_pid=child.pid, agent_pgid=child.pid, agent_start=start_time(child.pid),
                     agent_started_at=time.time())  # fmt: skip
    job.run.write("state.json", job.state)
    job.start(child, f"the CLI '{child.argv[0]}'")
    job.state["agent_start"] = job.state["agent_start"] or start_time(child.pid)  # hidepid hid it before exec
    job.save_state(durable=True)  # not before the start: a sync waits for the files of the checkout


class AgentLimits:
    """Decides when the CLI has to be ended."""

    def __init__(
        self,
        job: Execution,
        logs: list[Log],
        final_event: FinalEvent,
        notes: SessionNotes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch, self._limits, self._logs = job.watch, job.limits, logs
        self._final_event, self._notes, self._clock = final_event, notes, clock
        self._began = self._last_output_at = clock()
        self._size = 0

    def check(self) -> str | None:
        """Return why it has to be ended now, if it has to. Called at least twice a second."""
        self._notes.update()
        now, size = self._clock(), sum(log.size for log in self._logs)
        if size != self._size:
            self._size, self._last_output_at = size, now
        if self._watch.stop_reason:
            return "cancelled"
        if self._final_event.seen_at and now - self._final_event.seen_at > self._limits["final_secs"]:
            return "hung"
        if now - self._began > self._limits["wall_secs"]:
            return "timed_out"
        return "silent" if now - self._last_output_at > self._limits["silence_secs"] else None

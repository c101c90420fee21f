"""Holds what all steps of one run share: its request, limits, state and result."""

from __future__ import annotations

import os
import time

from workers.supervisor.constants import LIMITS, NO_SPACE, STEPS, TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.procfs import boot_id, start_time
from workers.supervisor.run import new_result
from workers.supervisor.watch import Watch
from workers.supervisor.worktree import open_workspace

if TYPE_CHECKING:
    from workers.supervisor.constants import Json
    from workers.supervisor.processes import Child
    from workers.supervisor.run import Run

ISOLATION_FAILED = "process isolation (Landlock) failed: this run can inspect other processes of the same user"
NO_PRIVILEGES = "; isolation keeps it from new privileges: set `{} = false` for the CLI to allow them"


class Execution:
    """One run while its supervisor works on it."""

    def __init__(self, run: Run, request: Json) -> None:
        self.run, self.request = run, request
        self.limits: Json = {**LIMITS, **{k: v for k, v in (request.get("limits") or {}).items() if v}}
        self.watch = Watch(run.file("heartbeat"), request.get("heartbeat_secs") or 5)
        self.workspace = open_workspace(request, run, self.watch, self.limits)
        self.state: Json = {
            "run": run.name, "pid": os.getpid(), "pgid": os.getpgrp(), "pid_start": start_time(os.getpid()),
            "boot_id": boot_id(), "step": STEPS[0], "started_at": time.time(),
            "agent_pid": None, "agent_pgid": None, "agent_start": None, "agent_started_at": None,
        }  # fmt: skip
        self.result = new_result(run.name, "finished", None, started_at=self.state["started_at"])

    def save_state(self, durable: bool = False) -> None:
        """Write state.json. A full disk does not end the run."""
        try:
            self.run.write("state.json", self.state, durable=durable)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def grace(self) -> float:
        """Return the seconds between SIGTERM and SIGKILL: the cancel request's, else the limit."""
        return float({**self.limits, **(self.run.read("cancel.json") or {})}["grace_secs"])

    def run_variables(self) -> dict[str, str]:
        """Return the variables of every process of the run. By FLEET_RUN_ID those of a dead supervisor are found."""
        return {"FLEET_RUN": self.run.name, "FLEET_RUN_ID": self.run.id}

    def start(self, child: Child, name: str) -> None:
        """Let a held program run. Raises RunEnded if it cannot be executed."""
        try:
            child.start()
        except FileNotFoundError:
            raise RunEnded("failed", f"{name} is not on this host's PATH", "cli_missing") from None
        except OSError as error:
            raise RunEnded("failed", f"{name} could not be started: {error.strerror}") from None
        if child.isolation_failed and ISOLATION_FAILED not in self.result["warnings"]:
            self.result["warnings"].append(ISOLATION_FAILED)

    def is_isolated(self, switch: str) -> bool:
        """Return True if the CLI (`apart`), or hooks and checks (`checks_apart`), are isolated.

        Hooks and checks are the repository's own and may need sudo or containers, so that is off by default.
        """
        return self.request["agent"].get(switch, switch == "apart") is True

    def privilege_hint(self, switch: str, output: bytes) -> str:
        """Return the end of a failure's reason, if a program says that it was kept from new privileges."""
        return NO_PRIVILEGES.format(switch) if self.is_isolated(switch) and b"no new privileges" in output else ""

"""Looks at the runs of this machine, all at once, and ends those that must not go on. Knows no network."""

import threading
from typing import Any

import structlog

from workers.agent import boot_clock
from workers.agent.api_client import Server
from workers.agent.leases import Hold, Holds, Step
from workers.agent.local_runs import Machine
from workers.errors import Unreachable

Json = dict[str, Any]
LEASE, LEAVING = "the lease could not be renewed", "the agent is told to stop"
PARKED, PARKED_GRACE_SECS = "the fleet says: parked", 3.0  # its budget is used up: each second costs
AGAIN_SECS = 10.0
log = structlog.get_logger()


class Lookout:
    """One thread. Whoever waits for a run is told after each look."""

    def __init__(self, holds: Holds, machine: Machine, server: Server, every: float) -> None:
        self._holds, self._machine, self._server, self._every = holds, machine, server, every
        self._looked = threading.Condition()
        self._looks, self._seen = 0, dict[str, Json]()
        self._told: dict[str, float] = {}  # when each run was last told to end

    def watch(self) -> None:
        """For ever."""
        while True:
            try:
                self.look()
            except Unreachable as why:
                log.warning("the supervisor does not answer", why=str(why))
            except Exception:
                log.exception("a look broke")
            threading.Event().wait(self._every)

    def look(self) -> None:
        going = self._holds.at(Step.RUNNING)
        for hold in going:
            self._end_in_time(hold)
        seen = self._machine.poll(going)
        with self._looked:
            self._looks, self._seen = self._looks + 1, seen
            self._looked.notify_all()

    def next(self, hold: Hold) -> Json | None:
        """What the next look sees of a run."""
        with self._looked:
            after = self._looks
            self._looked.wait_for(lambda: self._looks > after, timeout=30)
            return self._seen.get(hold.run)

    def has_time_for(self, hold: Hold) -> bool:
        """Whether the lease lasts long enough for a run to go on, and to be ended before it does."""
        return hold.left >= 2 * self._grace() + self._every

    def _grace(self) -> float:
        return self._server.welcome.grace_secs if self._server.welcome else 2.0

    def _end_in_time(self, hold: Hold) -> None:
        """The run must have ended before its lease does: another place may have the task a moment later."""
        if hold.stop is None and not self.has_time_for(hold):
            self._holds.change(hold, stop=LEASE)
        if hold.stop and boot_clock.now() > self._told.get(hold.run, 0.0):
            log.warning("ending a run", task=hold.task_id, run=hold.run, why=hold.stop)
            self._told[hold.run] = boot_clock.now() + AGAIN_SECS
            self._machine.cancel(hold, min(self._grace(), PARKED_GRACE_SECS) if hold.stop == PARKED else self._grace())

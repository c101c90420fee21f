"""Polls all runs of this machine at once, and ends those whose lease is about to end. Uses no network."""

import threading

import structlog

from workers.agent import boot_clock
from workers.agent.api_client import ApiClient
from workers.agent.held_tasks import HeldTask, HeldTasks, Step
from workers.agent.local_runs import LocalRuns
from workers.errors import Unreachable
from workers.protocol import RunStatus

LEASE_ENDS, AGENT_STOPS = "the lease could not be renewed", "the agent is told to stop"
PARKED, PARKED_GRACE_SECS = "the fleet says: parked", 3.0  # its budget is used up: each second costs
CANCEL_AGAIN_SECS = 10.0
NEXT_POLL_SECS = 30.0
log = structlog.get_logger()


class RunWatcher:
    """The thread that polls every `interval` seconds. Other threads wait for the next poll of a run."""

    def __init__(self, tasks: HeldTasks, runs: LocalRuns, api: ApiClient, interval: float) -> None:
        self._tasks, self._runs, self._api, self._interval = tasks, runs, api, interval
        self._polled = threading.Condition()
        self._polls, self._statuses = 0, dict[str, RunStatus]()
        self._cancel_again_at: dict[str, float] = {}  # by run, on the boot clock

    def run(self) -> None:
        """Poll for as long as the process lives."""
        while True:
            try:
                self.poll()
            except Unreachable as why:
                log.warning("the supervisor does not answer", why=str(why))
            except Exception:
                log.exception("a poll failed")
            threading.Event().wait(self._interval)

    def poll(self) -> None:
        running = self._tasks.at(Step.RUNNING)
        for held in running:
            self._end_in_time(held)
        statuses = self._runs.poll(running)
        with self._polled:
            self._polls, self._statuses = self._polls + 1, statuses
            self._polled.notify_all()

    def next(self, held: HeldTask) -> RunStatus | None:
        """The status of a run in the next poll; None if it was not polled."""
        with self._polled:
            before = self._polls
            self._polled.wait_for(lambda: self._polls > before, timeout=NEXT_POLL_SECS)
            return self._statuses.get(held.run_name)

    def has_time_for(self, held: HeldTask) -> bool:
        """True if the lease lasts long enough for a run to go on, and to be ended before the lease ends."""
        return held.lease_secs_left >= 2 * self._api.grace_secs() + self._interval

    def _end_in_time(self, held: HeldTask) -> None:
        """The run must end before its lease does: the fleet may then give the task to another host or agent."""
        if held.stop_reason is None and not self.has_time_for(held):
            self._tasks.change(held, stop_reason=LEASE_ENDS)
        if held.stop_reason and boot_clock.now() > self._cancel_again_at.get(held.run_name, 0.0):
            log.warning("ending a run", task=held.task_id, run=held.run_name, why=held.stop_reason)
            self._cancel_again_at[held.run_name] = boot_clock.now() + CANCEL_AGAIN_SECS
            grace = self._api.grace_secs()
            self._runs.cancel(held, min(grace, PARKED_GRACE_SECS) if held.stop_reason == PARKED else grace)

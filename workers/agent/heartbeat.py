"""Sends heartbeats, which renew the leases of held tasks, and applies the answers."""

import threading
from collections.abc import Callable
from dataclasses import replace

import structlog

from workers.agent import boot_clock
from workers.agent.api_client import ApiClient, RegistrationRefused, RequestRefused, ServerUnavailable
from workers.agent.held_tasks import HeldTask, HeldTasks, Step, no_bytes
from workers.agent.messages import Feedback, TaskUpdate

IDLE = frozenset({Step.WAITING, Step.PAUSED})  # no thread works on these: an update starts one
DEFAULT_SECS = 60.0
log = structlog.get_logger()


class Heartbeat:
    """The thread that sends heartbeats. `start_thread` starts work on a task, `fatal` ends the agent."""

    def __init__(self, tasks: HeldTasks, api: ApiClient, fatal: Callable[[str], None]) -> None:
        self.start_thread: Callable[[HeldTask], None] = lambda _: None
        self._tasks, self._api, self._fatal = tasks, api, fatal
        self._requested = threading.Event()

    def send_soon(self) -> None:
        """Send the next heartbeat now."""
        self._requested.set()

    def run(self) -> None:
        """Send heartbeats for as long as the process lives; after a failure, retry with back-off."""
        backoff = self._api.backoff()
        while True:
            self._requested.clear()
            try:
                self.send()
                backoff, pause = self._api.backoff(), self._api.heartbeat_secs(DEFAULT_SECS)
            except (ServerUnavailable, RequestRefused) as why:
                pause = next(backoff)
                log.warning("no heartbeat", why=str(why), retry_in=round(pause, 1))
            except RegistrationRefused as why:
                return self._fatal(str(why))
            except Exception:
                pause = next(backoff)
                log.exception("a heartbeat failed")
            self._requested.wait(pause)

    def send(self) -> None:
        """Send one heartbeat. Raises ServerUnavailable, RegistrationRefused, RequestRefused."""
        sent_at = boot_clock.now()
        named = [held for held in self._tasks.all() if held.step is not Step.OVER]
        body = {"tasks": [{"task_id": held.task_id, "lease": held.lease} for held in named]}
        for update in self._api.call("/agents/heartbeat", body)["tasks"]:
            self._apply(TaskUpdate.from_json(update), sent_at)

    def _apply(self, update: TaskUpdate, sent_at: float) -> None:
        known = self._tasks.of_task(update.task_id)
        held = next((one for one in known if one.lease == update.lease), None)
        if held is not None and update.stop:
            self._stop(held, f"the fleet says: {update.status}")
        elif held is not None:
            self._renew(held, update, sent_at)
        elif update.feedback is not None:
            waiting = next((one for one in known if one.step is Step.WAITING and one.lease < update.lease), None)
            if waiting is not None:
                self._start_round(waiting, update.lease, update.feedback)

    def _stop(self, held: HeldTask, why: str) -> None:
        """The thread that works on it sees `stop_reason`; for a task without a thread, one is started to leave it."""
        if held.step in IDLE:
            self._tasks.change(held, step=Step.OVER)
            self.start_thread(held)
        elif held.stop_reason != why:
            self._tasks.change(held, stop_reason=why)

    def _renew(self, held: HeldTask, update: TaskUpdate, sent_at: float) -> None:
        if not update.is_held or self._api.registration is None:
            return
        self._tasks.renew(held, sent_at, self._api.registration.lease_secs)
        if held.step is Step.PAUSED:
            self._tasks.change(held, step=Step.REGAINED)
            self.start_thread(held)

    def _start_round(self, held: HeldTask, lease: int, feedback: Feedback) -> None:
        """A review asks for changes: a new lease, the same worktree and session."""
        log.info("a review asks for changes", task=held.task_id, lease=lease, by=feedback.by)
        self._tasks.change(
            held, lease=lease, prompt=feedback.prompt, step=Step.TAKEN, stop_reason=None, interrupted=False,
            log_base=no_bytes(), offsets=no_bytes(), work=replace(held.work, push=feedback.push or held.work.push),
        )  # fmt: skip
        self.start_thread(held)

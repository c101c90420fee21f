"""Dequeues tasks while a slot is free. If the response is lost, the same request is repeated with the same key."""

import secrets
import threading
import time
from collections.abc import Callable

import structlog

from workers.agent.api_client import ApiClient, RegistrationRefused, RequestRefused, ServerUnavailable
from workers.agent.held_tasks import BUSY, HeldTask, HeldTasks, Step
from workers.agent.messages import Work
from workers.agent.state_dir import DequeueRequest, StateDir

WAIT_SECS, MOST_TASKS = 30, 50
SHORTEST_POLL_SECS = 1.0  # between two requests to a server that does not let us wait
log = structlog.get_logger()


class Dequeuer:
    """The thread that dequeues. `start_thread` starts work on a task, `fatal` ends the agent."""

    def __init__(
        self, slots: int, state: StateDir, tasks: HeldTasks, api: ApiClient,
        start_thread: Callable[[HeldTask], None], fatal: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._slots, self._state, self._tasks, self._api = slots, state, tasks, api
        self._start_thread, self._fatal = start_thread, fatal
        self._closed = threading.Event()

    def close(self) -> None:
        """Take no more tasks. A response that arrives later is not confirmed, and the fleet requeues its tasks."""
        self._closed.set()

    def run(self) -> None:
        """Dequeue until closed."""
        backoff = self._api.backoff()
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                pause = 0.0 if self._dequeue() else SHORTEST_POLL_SECS - (time.monotonic() - began)
                backoff = self._api.backoff()
            except ServerUnavailable as why:
                pause = max(next(backoff), why.retry_after or 0.0)
                log.warning("dequeue: no answer, retrying with the same key", why=str(why), retry_in=round(pause, 1))
            except RegistrationRefused as why:
                return self._fatal(str(why))
            except RequestRefused as refusal:
                self._state.save_request(None)
                pause = next(backoff)
                log.warning("dequeue was refused", why=str(refusal), retry_in=round(pause, 1))
            except Exception:
                pause = next(backoff)
                log.exception("dequeue failed")
            self._closed.wait(max(0.0, pause))

    def _dequeue(self) -> bool:
        """Send one request. True if the next one may follow at once.

        Raises ServerUnavailable, RequestRefused, RegistrationRefused.
        """
        request = self._state.request() or self._new_request()
        if request is None:
            return True
        body = {"max_tasks": request.max_tasks, "wait_secs": WAIT_SECS}
        response = self._api.call("/tasks/dequeue", body, key=request.key, wait=WAIT_SECS)
        if self._closed.is_set():
            return False
        found = response.get("tasks", [response] if response else [])
        for work in found:
            self._take(HeldTask.taken(Work.from_json(work)))
        self._state.save_request(None)
        return bool(found)

    def _new_request(self) -> DequeueRequest | None:
        """A request for as many tasks as slots are free, saved before it is sent. None while all slots are taken."""
        if not self._tasks.wait(lambda: self._free() > 0 or self._closed.is_set(), 1.0) or self._closed.is_set():
            return None
        request = DequeueRequest(secrets.token_hex(16), min(self._free(), MOST_TASKS))
        self._state.save_request(request)
        return request

    def _take(self, held: HeldTask) -> None:
        """Save the task, then start it. An older lease of the same task is left; its worktree is kept."""
        if not self._tasks.add(held):
            return
        log.info("took a task", task=held.task_id, lease=held.lease)
        for older in self._tasks.of_task(held.task_id):
            if older.lease < held.lease and older.step in (Step.WAITING, Step.PAUSED):
                self._tasks.change(older, step=Step.OVER)
                self._start_thread(older)
        self._start_thread(held)

    def _free(self) -> int:
        return self._slots - len(self._tasks.at(*BUSY))

"""Asks for work while a slot is free; a question whose answer was lost is asked again by the same key."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from workers.agent import leases as holding
from workers.agent.api_client import Away, Refusal, Server, Unwelcome
from workers.agent.leases import BUSY, Hold, Holds, Step
from workers.agent.state_dir import Folder

Json = dict[str, Any]
WAIT_SECS, MOST_TASKS = 30, 50
QUICK_SECS = 1.0  # a server that does not let us wait is asked at most this often
log = structlog.get_logger()


class Asking:
    """One thread."""

    def __init__(
        self, slots: int, folder: Folder, holds: Holds, server: Server,
        begin: Callable[[Hold], None], fatal: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._slots, self._folder, self._holds, self._server = slots, folder, holds, server
        self._begin, self._fatal = begin, fatal
        self._closed = threading.Event()

    def close(self) -> None:
        """Take no more. An answer that still comes is not confirmed, and the fleet has the task back."""
        self._closed.set()

    def ask_on(self) -> None:
        """Until closed."""
        pauses = self._server.pauses()
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                wait = 0.0 if self._ask() else QUICK_SECS - (time.monotonic() - began)
                pauses = self._server.pauses()
            except Away as why:
                wait = max(next(pauses), why.retry_after or 0.0)
                log.warning("no answer; asked again by the same key", why=str(why), again_in=round(wait, 1))
            except Unwelcome as why:
                return self._fatal(str(why))
            except Refusal as no:
                self._folder.keep_question(None)
                wait = next(pauses)
                log.warning("the fleet gives no work", why=str(no), again_in=round(wait, 1))
            except Exception:
                wait = next(pauses)
                log.exception("a question broke")
            self._closed.wait(max(0.0, wait))

    def _ask(self) -> bool:
        """Whether there is reason to ask again at once. Raises Away, Refusal, Unwelcome."""
        question = self._folder.question()
        if question is None:
            if not self._holds.wait(lambda: self._free() > 0 or self._closed.is_set(), 1.0) or self._closed.is_set():
                return True
            question = {"key": secrets.token_hex(16), "max_tasks": min(self._free(), MOST_TASKS)}
            self._folder.keep_question(question)
        wish = {"max_tasks": question["max_tasks"], "wait_secs": WAIT_SECS}
        answer = self._server.call("/tasks/dequeue", wish, key=question["key"], wait=WAIT_SECS)
        if self._closed.is_set():
            return False
        found = answer.get("tasks", [answer] if answer else [])
        for work in found:
            self._take(holding.taken(work))
        self._folder.keep_question(None)
        return bool(found)

    def _take(self, hold: Hold) -> None:
        """Written down first. What we had of the same task by an older lease is left, its worktree is kept."""
        if not self._holds.add(hold):
            return
        log.info("took a task", task=hold.task_id, lease=hold.lease)
        for older in self._holds.of_task(hold.task_id):
            if older.lease < hold.lease and older.step in (Step.WAITING, Step.PAUSED):
                self._holds.change(older, step=Step.OVER)
                self._begin(older)
        self._begin(hold)

    def _free(self) -> int:
        return self._slots - len(self._holds.at(*BUSY))

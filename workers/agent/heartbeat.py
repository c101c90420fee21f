"""The agent's pulse: says that we live and what we hold, and hears what became of it."""

import threading
from collections.abc import Callable
from typing import Any

import structlog

from workers.agent import boot_clock
from workers.agent.api_client import Away, Refusal, Server, Unwelcome
from workers.agent.leases import Hold, Holds, Step, no_bytes

Json = dict[str, Any]
IDLE = frozenset({Step.WAITING, Step.PAUSED})  # nobody works on these: news brings them back to life
log = structlog.get_logger()


class Pulse:
    """One thread. `begin` gives a task a life again, `fatal` ends the agent."""

    def __init__(self, holds: Holds, server: Server, fatal: Callable[[str], None]) -> None:
        self.begin: Callable[[Hold], None] = lambda _: None
        self._holds, self._server, self._fatal = holds, server, fatal
        self._now = threading.Event()

    def soon(self) -> None:
        """Do not wait for the next beat: something is to be asked."""
        self._now.set()

    def beat_on(self) -> None:
        """For ever. While nobody answers the pauses are short ones, at first."""
        pauses = self._server.pauses()
        while True:
            self._now.clear()
            try:
                self.beat()
                pauses, wait = self._server.pauses(), self._server.welcome.beat_secs if self._server.welcome else 60.0
            except (Away, Refusal) as why:
                wait = next(pauses)
                log.warning("no pulse", why=str(why), again_in=round(wait, 1))
            except Unwelcome as why:
                return self._fatal(str(why))
            except Exception:
                wait = next(pauses)
                log.exception("a beat broke")
            self._now.wait(wait)

    def beat(self) -> None:
        """Once. Raises Away, Unwelcome, Refusal."""
        sent = boot_clock.now()
        named = [hold for hold in self._holds.all() if hold.step is not Step.OVER]
        told = [{"task_id": hold.task_id, "lease": hold.lease} for hold in named]
        for news in self._server.call("/agents/heartbeat", {"tasks": told})["tasks"]:
            self._hear(news, sent)

    def _hear(self, news: Json, sent: float) -> None:
        ours = self._holds.of_task(news["task_id"])
        hold = next((one for one in ours if one.lease == news["lease"]), None)
        if hold is not None and news["stop"]:
            self._stop(hold, f"the fleet says: {news['status']}")
        elif hold is not None:
            self._keep(hold, news, sent)
        elif "feedback" in news:
            waiting = next((one for one in ours if one.step is Step.WAITING and one.lease < news["lease"]), None)
            if waiting is not None:
                self._next_round(waiting, news)

    def _stop(self, hold: Hold, why: str) -> None:
        """Whoever works on it sees `stop`; what waits is woken to be left."""
        if hold.step in IDLE:
            self._holds.change(hold, step=Step.OVER)
            self.begin(hold)
        elif hold.stop != why:
            self._holds.change(hold, stop=why)

    def _keep(self, hold: Hold, news: Json, sent: float) -> None:
        if news["lease_expires_at"] is None or self._server.welcome is None:
            return
        self._holds.renew(hold, sent, self._server.welcome.lease_secs)
        if hold.step is Step.PAUSED:
            self._holds.change(hold, step=Step.REGAINED)
            self.begin(hold)

    def _next_round(self, hold: Hold, news: Json) -> None:
        """Changes were asked for: a new lease, the same worktree and session."""
        asked = news["feedback"]
        log.info("a review", task=hold.task_id, lease=news["lease"], by=asked["by"])
        self._holds.change(
            hold, lease=news["lease"], prompt=asked["prompt"], step=Step.TAKEN, stop=None, cut=False, base=no_bytes(),
            offsets=no_bytes(), work=hold.work | ({"push": asked["push"]} if asked.get("push") else {}),
        )  # fmt: skip
        self.begin(hold)

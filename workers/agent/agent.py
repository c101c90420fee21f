"""Runs the agent: registers, works, drains on the first SIGTERM, and stops its runs on the second."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog

from app.domain.masking import Mask
from app.domain.run import slug
from app.logs import set_up_logs
from workers.agent.api_client import ApiClient, RegistrationRefused, RequestRefused, ServerUnavailable
from workers.agent.dequeue import Dequeuer
from workers.agent.heartbeat import Heartbeat
from workers.agent.held_tasks import BUSY, HeldTasks, Step
from workers.agent.local_runs import LocalRuns
from workers.agent.messages import Json
from workers.agent.receipt_outbox import Outbox
from workers.agent.run_watcher import AGENT_STOPS, RunWatcher
from workers.agent.settings import Settings
from workers.agent.state_dir import StateDir
from workers.agent.task_thread import Context

DRAINED, STOPPED, REFUSED = 0, 143, 1  # exit codes
DEREGISTER_SECS = 5.0
log = structlog.get_logger()


class Agent:
    """One process of the agent."""

    def __init__(self, settings: Settings, state: StateDir) -> None:
        self._settings, self._agent_id = settings, state.agent_id(settings.agent_id)
        self._stop_signals, self._why = 0, ""
        self._tasks = HeldTasks(state, settings.cli)
        runs = LocalRuns(state.work, slug(self._agent_id), settings.template, settings.forge_token)
        self._api = ApiClient(settings.server, state, self._about(runs.cli_version(settings.cli)), settings.enrol_token)
        self._watcher = RunWatcher(self._tasks, runs, self._api, settings.poll_secs)
        self._heartbeat = Heartbeat(self._tasks, self._api, self._end)
        self._context = Context(
            settings.template, threading.Semaphore(settings.slots), self._tasks, self._api, runs,
            Outbox(state), self._watcher, self._heartbeat, self._mask, self._end,
        )  # fmt: skip
        start_thread = self._context.start_thread
        self._heartbeat.start_thread = start_thread
        self._dequeuer = Dequeuer(settings.slots, state, self._tasks, self._api, start_thread, self._end)

    def run(self) -> int:
        """Work until told to stop; returns the exit code. Held tasks go on even if the server does not answer."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        set_up_logs(self._mask())
        log.info("agent", agent=self._agent_id, server=self._settings.server, held=len(self._tasks.all()))
        self._start(self._watcher.run)
        for held in self._tasks.all():
            self._context.start_thread(held)
        if self._register():
            self._start(self._heartbeat.run)
            self._start(self._dequeuer.run)
        self._wait(lambda: self._stop_signals > 0)
        return self._drain()

    def _register(self) -> bool:
        """Register, however long it takes. False if told to stop, or refused."""
        backoff = self._api.backoff()
        while not self._stop_signals:
            try:
                self._api.register()
                set_up_logs(self._mask())
                return True
            except RegistrationRefused as why:
                self._end(str(why))
            except ServerUnavailable as why:
                pause = next(backoff)
                log.warning("the fleet cannot be reached", why=str(why), retry_in=round(pause, 1))
                self._tasks.wait(lambda: self._stop_signals > 0, max(pause, why.retry_after or 0.0))
        return False

    def _drain(self) -> int:
        """Take no new work and finish what is held; on a second signal, stop it. Returns the exit code."""
        self._dequeuer.close()
        if self._stop_signals == 1:
            log.info("draining: SIGTERM once more stops at once", busy=len(self._tasks.at(*BUSY)))
        self._wait(lambda: self._stop_signals > 1 or not self._tasks.at(*BUSY, Step.OVER))
        if self._stop_signals > 1:
            self._stop_runs()
        if not self._why:
            self._deregister()
        log.info("the agent has ended", why=self._why or None)
        return REFUSED if self._why else STOPPED if self._stop_signals > 1 else DRAINED

    def _stop_runs(self) -> None:
        """End the local runs. Their tasks stay saved: the next start asks whether they are still held."""
        running = BUSY - {Step.ENDED}
        for held in self._tasks.at(*running):
            self._tasks.change(held, stop_reason=AGENT_STOPS)
        self._tasks.wait(lambda: not self._tasks.at(*running), 2 * self._api.grace_secs() + 10)

    def _deregister(self) -> None:
        try:
            requeued = self._api.call("/agents/deregister", {}, seconds=DEREGISTER_SECS)["requeued"]
            log.info("deregistered", requeued=requeued)
        except (ServerUnavailable, RequestRefused, RegistrationRefused) as why:
            log.warning("could not deregister", why=str(why))

    def _end(self, why: str) -> None:
        """The fleet refuses the agent: stop the runs, since no result of theirs can be delivered."""
        self._why, self._stop_signals = why, 2

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._stop_signals += 1

    def _wait(self, condition: Callable[[], bool]) -> None:
        while not self._tasks.wait(condition, 0.2):
            pass

    @property
    def why(self) -> str:
        """Why the fleet refuses the agent; empty if it does not."""
        return self._why

    def _mask(self) -> Mask:
        return Mask([*self._api.secrets(), self._settings.forge_token])

    def _about(self, version: str | None) -> Json:
        settings = self._settings
        return {
            "agent_id": self._agent_id, "agent_type": settings.cli, "hostname": settings.hostname,
            "capabilities": list(settings.capabilities), "max_concurrency": settings.slots,
            "metadata": {"program": "fleet agent", "clis": {settings.cli: version}},
        }  # fmt: skip

    @staticmethod
    def _start(target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=target.__qualname__, daemon=True).start()

"""The agent's own life: comes in, works, drains when told to stop, and stops at once when told so twice."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from app.clis.template import CliTemplate
from app.domain.masking import Mask
from app.domain.run import slug
from app.logs import set_up_logs
from workers.agent.api_client import Away, Refusal, Server, Unwelcome
from workers.agent.dequeue import Asking
from workers.agent.heartbeat import Pulse
from workers.agent.leases import BUSY, Holds, Step
from workers.agent.local_runs import Machine
from workers.agent.outbox import Outbox
from workers.agent.run_watcher import LEAVING, Lookout
from workers.agent.state_dir import Folder
from workers.agent.task_thread import Household

DRAINED, STOPPED, REFUSED = 0, 143, 1
FAREWELL_SECS = 5.0
log = structlog.get_logger()


@dataclass(frozen=True)
class Settings:
    """What the agent is called by, checked."""

    server: str
    capabilities: tuple[str, ...]
    cli: str
    template: CliTemplate
    slots: int
    agent_id: str | None
    folder: Path
    hostname: str
    look_secs: float
    enrol_token: str | None = field(repr=False)
    forge_token: str | None = field(repr=False)


class Agent:
    """One instance of the program."""

    def __init__(self, settings: Settings, folder: Folder) -> None:
        self._settings, self._agent_id = settings, folder.agent_id(settings.agent_id)
        self._told_to_stop, self._why = 0, ""
        self._holds = Holds(folder, settings.cli)
        machine = Machine(folder.work, slug(self._agent_id), settings.template, settings.forge_token)
        about = self._about(machine.version(settings.cli))
        self._server = Server(settings.server, folder, about, settings.enrol_token)
        self._lookout = Lookout(self._holds, machine, self._server, settings.look_secs)
        self._pulse = Pulse(self._holds, self._server, self._end)
        self._us = Household(
            settings.cli, settings.template, threading.Semaphore(settings.slots), self._holds, self._server, machine,
            Outbox(folder), self._lookout, self._pulse, self._mask, self._end,
        )  # fmt: skip
        self._pulse.begin = self._us.begin
        self._asking = Asking(settings.slots, folder, self._holds, self._server, self._us.begin, self._end)

    def live(self) -> int:
        """Until told to stop; the exit code. What was held before goes on first, whether or not the server answers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        set_up_logs(self._mask())
        log.info("agent", agent=self._agent_id, server=self._settings.server, held=len(self._holds.all()))
        self._thread(self._lookout.watch)
        for hold in self._holds.all():
            self._us.begin(hold)
        if self._come_in():
            self._thread(self._pulse.beat_on)
            self._thread(self._asking.ask_on)
        self._until(lambda: self._told_to_stop > 0)
        return self._drain()

    def _come_in(self) -> bool:
        """Register, however long it takes; False when told to stop, or not let in."""
        pauses = self._server.pauses()
        while not self._told_to_stop:
            try:
                self._server.register()
                set_up_logs(self._mask())
                return True
            except Unwelcome as why:
                self._end(str(why))
            except Away as why:
                pause = next(pauses)
                log.warning("the fleet cannot be reached", why=str(why), again_in=round(pause, 1))
                self._holds.wait(lambda: self._told_to_stop > 0, max(pause, why.retry_after or 0.0))
        return False

    def _drain(self) -> int:
        """No new work; what there is is finished, unless we are told again."""
        self._asking.close()
        if self._told_to_stop == 1:
            log.info("draining: SIGTERM once more stops at once", busy=len(self._holds.at(*BUSY)))
        self._until(lambda: self._told_to_stop > 1 or not self._holds.at(*BUSY, Step.OVER))
        if self._told_to_stop > 1:
            self._stop_runs()
        if not self._why:
            self._say_farewell()
        log.info("the agent has ended", why=self._why or None)
        return REFUSED if self._why else STOPPED if self._told_to_stop > 1 else DRAINED

    def _stop_runs(self) -> None:
        """End what runs here. The state keeps it: whether it is still ours is asked at the next start."""
        grace = self._server.welcome.grace_secs if self._server.welcome else 2.0
        going = BUSY - {Step.ENDED}
        for hold in self._holds.at(*going):
            self._holds.change(hold, stop=LEAVING)
        self._holds.wait(lambda: not self._holds.at(*going), 2 * grace + 10)

    def _say_farewell(self) -> None:
        try:
            back = self._server.call("/agents/deregister", {}, seconds=FAREWELL_SECS)["requeued"]
            log.info("deregistered", requeued=back)
        except (Away, Refusal, Unwelcome) as why:
            log.warning("left without a farewell", why=str(why))

    def _end(self, why: str) -> None:
        """There is no going on: the runs are ended, since nobody would hear of them."""
        self._why, self._told_to_stop = why, 2

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._told_to_stop += 1

    def _until(self, happened: Callable[[], bool]) -> None:
        while not self._holds.wait(happened, 0.2):
            pass

    @property
    def why(self) -> str:
        """Why the fleet does not let us in, if it does not."""
        return self._why

    def _mask(self) -> Mask:
        return Mask([*self._server.secrets(), self._settings.forge_token])

    def _about(self, version: str | None) -> dict[str, Any]:
        settings = self._settings
        return {
            "agent_id": self._agent_id, "agent_type": settings.cli, "hostname": settings.hostname,
            "capabilities": list(settings.capabilities), "max_concurrency": settings.slots,
            "metadata": {"program": "fleet agent", "clis": {settings.cli: version}},
        }  # fmt: skip

    @staticmethod
    def _thread(work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=work.__qualname__, daemon=True).start()

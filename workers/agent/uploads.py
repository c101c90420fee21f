"""What we tell the fleet of one task: its log by offset, its progress, and words that are repeated until answered."""

import base64
from collections.abc import Callable
from typing import Any

import structlog

from app.domain.masking import Mask
from workers.agent import boot_clock
from workers.agent.api_client import Away, Refusal, Server
from workers.agent.leases import Hold, Holds
from workers.agent.local_runs import Machine, data_of

Json = dict[str, Any]
STREAMS = ("stdout", "stderr")
USAGE_SECS = 2.0
log = structlog.get_logger()


class Reports:
    """The voice of one hold."""

    def __init__(self, hold: Hold, holds: Holds, server: Server, machine: Machine, mask: Callable[[], Mask]) -> None:
        self._hold, self._holds, self._server, self._machine, self._mask = hold, holds, server, machine, mask
        self._quiet_until, self._told, self._tell_again = 0.0, Json(), 0.0
        self._pauses = server.pauses()

    def insist(self, verb: str, body: Json) -> Json | None:
        """Say it until it is answered; None when the task was taken from us meanwhile. Raises Refusal, Unwelcome."""
        pauses = self._server.pauses()
        while not self._hold.stop:
            try:
                return self._server.about_task(self._hold.task_id, verb, body)
            except Away as why:
                self._pause(next(pauses), why)
        return None

    def keep_up(self, seen: Json, used: Json) -> None:
        """Tell what is new, and what was used, if the server answers now; what it does not hear now it hears later.
        Raises Refusal."""
        if boot_clock.now() < self._quiet_until:
            return
        try:
            for stream in STREAMS:
                self._upload(stream, seen[stream])
            self._tell_progress(seen, used)
            self._pauses = self._server.pauses()
        except Away as why:
            pause = next(self._pauses)
            log.info("a report waits", task=self._hold.task_id, why=str(why), secs=round(pause, 1))
            self._quiet_until = boot_clock.now() + pause

    def rest_of_log(self) -> None:
        """Tell all of the log that is not told yet. What the server refuses is left out."""
        pauses, going = self._server.pauses(), True
        while going and not self._hold.stop:
            before = dict(self._hold.offsets)
            try:
                seen = self._machine.poll([self._hold])[self._hold.run]
                for stream in STREAMS if seen["known"] else ():
                    self._upload(stream, seen[stream])
                going = self._hold.offsets != before
            except Away as why:
                self._pause(next(pauses), why)
            except Refusal as no:
                log.warning("the log is not taken", task=self._hold.task_id, why=str(no))
                going = False

    def _upload(self, stream: str, piece: Json) -> None:
        """The bytes that are new, secrets masked. The server says where to go on, and is right."""
        if piece["offset"] > self._hold.offsets[stream]:
            self._step_over(stream, piece["offset"])
        have, base = self._hold.offsets[stream], self._hold.base[stream]
        data = data_of(piece)[max(0, have - piece["offset"]) :]
        if data:
            next_ = max(0, self._send(stream, base + have, self._mask().bytes(data)) - base)
            self._holds.change(self._hold, offsets=self._hold.offsets | {stream: next_})

    def _step_over(self, stream: str, begin: int) -> None:
        """The middle of a log that was too long is not on this machine any more: a line says so in its place."""
        have, base = self._hold.offsets[stream], self._hold.base[stream]
        end = self._send(stream, base + have, f"\n[{begin - have} bytes of output were left out here]\n".encode())
        offsets, bases = self._hold.offsets | {stream: begin}, self._hold.base | {stream: end - begin}
        self._holds.change(self._hold, offsets=offsets, base=bases)

    def _send(self, stream: str, offset: int, data: bytes) -> int:
        """Where the server wants to go on."""
        text = base64.b64encode(data).decode()
        body = {"lease": self._hold.lease, "stream": stream, "offset": offset, "data": text}
        try:
            answer = self._server.about_task(self._hold.task_id, "log", body)
        except Refusal as no:
            if "next_offset" not in no.body:
                raise
            answer = no.body
        return int(answer["next_offset"])

    def _tell_progress(self, seen: Json, used: Json) -> None:
        """Each step at once, and what was used every few seconds."""
        step, news = str(seen.get("step")), {"step": str(seen.get("step")), "usage": used}
        is_next = step != self._told.get("step")
        if seen.get("result") or news == self._told or not (is_next or boot_clock.now() > self._tell_again):
            return
        sent, progress = boot_clock.now(), news | {"log_bytes": sum(seen[stream]["size"] for stream in STREAMS)}
        told = {"lease": self._hold.lease, "status": "running", "message": step, "progress": progress}
        answer = self._server.about_task(self._hold.task_id, "status", told)
        self._told, self._tell_again = news, sent + USAGE_SECS
        if answer["stop"]:
            self._holds.change(self._hold, stop=f"the fleet says: {answer['status']}")
        elif self._server.welcome:
            self._holds.renew(self._hold, sent, self._server.welcome.lease_secs)

    def _pause(self, secs: float, why: Away) -> None:
        log.info("no answer; it is said again", task=self._hold.task_id, why=str(why), secs=round(secs, 1))
        self._holds.wait(lambda: self._hold.stop is not None, max(secs, why.retry_after or 0.0))

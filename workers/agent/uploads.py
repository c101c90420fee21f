"""Uploads logs, progress and the receipt of one held task to the server."""

import base64
from collections.abc import Callable, Mapping

import structlog

from app.domain.masking import Mask
from app.domain.run import Usage
from workers.agent import boot_clock
from workers.agent.api_client import ApiClient, RequestRefused, ServerUnavailable
from workers.agent.held_tasks import HeldTask, HeldTasks
from workers.agent.local_runs import LocalRuns
from workers.agent.messages import TaskState
from workers.protocol import STREAMS, LogPiece, RunStatus

USAGE_SECS = 2.0  # between two reports that bring nothing but usage
log = structlog.get_logger()


class Uploads:
    """The uploads of one held task. Secrets are masked by `mask`."""

    def __init__(
        self, held: HeldTask, tasks: HeldTasks, api: ApiClient, runs: LocalRuns, mask: Callable[[], Mask]
    ) -> None:
        self._held, self._tasks, self._api, self._runs, self._mask = held, tasks, api, runs, mask
        self._not_before = 0.0  # on the boot clock: the next upload, after one that failed
        self._reported: tuple[str, Usage] | None = None  # step and usage
        self._report_again_at = 0.0
        self._backoff = api.backoff()

    def insist(self, verb: str, body: Mapping[str, object]) -> TaskState | None:
        """Send a report until it is answered; None if the task must stop meanwhile.

        Raises RequestRefused, RegistrationRefused.
        """
        backoff = self._api.backoff()
        while not self._held.stop_reason:
            try:
                return TaskState.from_json(self._api.call_task(self._held.task_id, verb, body))
            except ServerUnavailable as why:
                self._pause(next(backoff), why)
        return None

    def upload(self, status: RunStatus, usage: Usage) -> None:
        """Upload what is new, if the server answers; what fails is uploaded later. Raises RequestRefused."""
        if boot_clock.now() < self._not_before:
            return
        try:
            for stream in STREAMS:
                self._upload_piece(stream, status.logs[stream])
            self._report_progress(status, usage)
            self._backoff = self._api.backoff()
        except ServerUnavailable as why:
            pause = next(self._backoff)
            log.info("an upload waits", task=self._held.task_id, why=str(why), secs=round(pause, 1))
            self._not_before = boot_clock.now() + pause

    def upload_rest(self) -> None:
        """Upload the rest of the log, however long it takes. What the server refuses is left out."""
        backoff, has_more = self._api.backoff(), True
        while has_more and not self._held.stop_reason:
            before = dict(self._held.offsets)
            try:
                status = self._runs.poll([self._held])[self._held.run_name]
                for stream in STREAMS if status.is_known else ():
                    self._upload_piece(stream, status.logs[stream])
                has_more = self._held.offsets != before
            except ServerUnavailable as why:
                self._pause(next(backoff), why)
            except RequestRefused as refusal:
                log.warning("the log was refused", task=self._held.task_id, why=str(refusal))
                has_more = False

    def _upload_piece(self, stream: str, piece: LogPiece) -> None:
        """Upload the new bytes of a piece. The server's answer says where to go on."""
        if piece.offset > self._held.offsets[stream]:
            self._upload_gap(stream, piece.offset)
        have, base = self._held.offsets[stream], self._held.log_base[stream]
        data = piece.data[max(0, have - piece.offset) :]
        if data:
            next_ = max(0, self._send(stream, base + have, self._mask().bytes(data)) - base)
            self._tasks.change(self._held, offsets=self._held.offsets | {stream: next_})

    def _upload_gap(self, stream: str, begin: int) -> None:
        """The middle of a log that was too long is gone from this machine: a line takes its place."""
        have, base = self._held.offsets[stream], self._held.log_base[stream]
        end = self._send(stream, base + have, f"\n[{begin - have} bytes of output were left out here]\n".encode())
        offsets, bases = self._held.offsets | {stream: begin}, self._held.log_base | {stream: end - begin}
        self._tasks.change(self._held, offsets=offsets, log_base=bases)

    def _send(self, stream: str, offset: int, data: bytes) -> int:
        """Send bytes; returns the offset that the server wants next."""
        text = base64.b64encode(data).decode()
        body = {"lease": self._held.lease, "stream": stream, "offset": offset, "data": text}
        try:
            answer = self._api.call_task(self._held.task_id, "log", body)
        except RequestRefused as refusal:
            if "next_offset" not in refusal.body:
                raise
            answer = refusal.body
        return int(answer["next_offset"])

    def _report_progress(self, status: RunStatus, usage: Usage) -> None:
        """Report a new step at once, and new usage every few seconds."""
        news, sent_at = (str(status.step), usage), boot_clock.now()
        is_new_step = self._reported is None or news[0] != self._reported[0]
        if status.result or news == self._reported or not (is_new_step or sent_at > self._report_again_at):
            return
        size = sum(status.logs[stream].size for stream in STREAMS)
        progress = {"step": news[0], "usage": vars(usage), "log_bytes": size}
        body = {"lease": self._held.lease, "status": "running", "message": news[0], "progress": progress}
        state = TaskState.from_json(self._api.call_task(self._held.task_id, "status", body))
        self._reported, self._report_again_at = news, sent_at + USAGE_SECS
        if state.stop:
            self._tasks.change(self._held, stop_reason=f"the fleet says: {state.status}")
        elif self._api.registration:
            self._tasks.renew(self._held, sent_at, self._api.registration.lease_secs)

    def _pause(self, secs: float, why: ServerUnavailable) -> None:
        log.info("no answer, retrying", task=self._held.task_id, why=str(why), secs=round(secs, 1))
        self._tasks.wait(lambda: self._held.stop_reason is not None, max(secs, why.retry_after or 0.0))

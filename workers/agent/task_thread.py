"""Works on one held task, step by step, from its lease to its end. After a restart it goes on with the saved step."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import structlog

from app.clis.template import CliTemplate
from app.domain.masking import Mask
from app.domain.run import Outcome
from workers.agent import boot_clock
from workers.agent.api_client import ApiClient, RegistrationRefused, RequestRefused
from workers.agent.heartbeat import Heartbeat
from workers.agent.held_tasks import HeldTask, HeldTasks, Step
from workers.agent.local_runs import LocalRuns
from workers.agent.receipt import Receipt, lost_receipt, make_receipt, replace_refused
from workers.agent.receipt_outbox import Outbox
from workers.agent.run_watcher import AGENT_STOPS, LEASE_ENDS, RunWatcher
from workers.agent.uploads import Uploads
from workers.agent.usage import UsageMeter
from workers.errors import Unreachable
from workers.protocol import STREAMS
from workers.runs.cli_call import read_outcome

T = TypeVar("T")
TRIES, RETRY_SECS = 3, 1.0  # of a request to the supervisor
RETRY_STEP_SECS = 5.0  # after an error in a step
WORKTREE_SECS = 60.0  # the wait for an older lease of the task to leave the worktree
MAY_COME_BACK = ("running", "review_pending")  # a delivered task in these may come back with a review
log = structlog.get_logger()


@dataclass(frozen=True)
class Context:
    """What all task threads share. At most as many as there are `slots` run a CLI at the same time."""

    template: CliTemplate
    slots: threading.Semaphore
    tasks: HeldTasks
    api: ApiClient
    runs: LocalRuns
    outbox: Outbox
    watcher: RunWatcher
    heartbeat: Heartbeat
    mask: Callable[[], Mask]
    fatal: Callable[[str], None]

    def start_thread(self, held: HeldTask) -> None:
        """Start a thread that works on a task from the step that it is at."""
        threading.Thread(target=TaskThread(self, held).run, name=held.worktree, daemon=True).start()


class TaskThread:
    """The work on one task."""

    def __init__(self, context: Context, held: HeldTask) -> None:
        self._context, self._held, self._tasks = context, held, context.tasks
        self._uploads = Uploads(held, context.tasks, context.api, context.runs, context.mask)

    def run(self) -> None:
        """Take each step until there is nothing to do before the next update.

        One thread per task at a time: an update may start a thread while the last one is about to end.
        """
        with self._held.lock:
            self._take_steps()

    def _take_steps(self) -> None:
        while self._tasks.has(self._held) and (step := self._STEPS.get(self._held.step)):
            try:
                step(self)
            except RegistrationRefused as why:
                return self._context.fatal(str(why))
            except Exception:
                log.exception("a step failed; it is retried", task=self._held.task_id, step=self._held.step)
                self._tasks.wait(lambda: False, RETRY_STEP_SECS)

    # --- the steps

    def _confirm(self) -> None:
        sent_at = boot_clock.now()
        try:
            body = {"lease": self._held.lease, "status": "running", "message": "taken"}
            state = self._uploads.insist("status", body)
        except RequestRefused as refusal:
            return self._await_heartbeat(refusal)
        if state is None or state.stop:
            return self._move(Step.OVER)
        if self._context.api.registration:
            self._tasks.renew(self._held, sent_at, self._context.api.registration.lease_secs)
        self._tasks.prepare_start(self._held)

    def _work(self) -> None:
        """Occupy a slot for as long as the CLI runs."""
        while not self._context.slots.acquire(timeout=1.0):
            if self._held.stop_reason and self._held.step is Step.CONFIRMED:
                return self._move(Step.OVER)
        try:
            if self._held.step is Step.RUNNING or self._start():
                self._watch()
        finally:
            self._context.slots.release()

    def _deliver_receipt(self) -> None:
        """Upload the whole log first, then the receipt."""
        receipt = self._context.outbox.get(self._held) or lost_receipt(self._held, "the agent lost its receipt")
        self._uploads.upload_rest()
        try:
            state = self._uploads.insist("complete", receipt.body())
        except RequestRefused as refusal:
            return self._replace_receipt(receipt, refusal)
        if state is None or state.status not in MAY_COME_BACK:
            return self._move(Step.OVER)
        self._release(with_worktree=False)
        self._context.outbox.delete(self._held)
        self._move(Step.WAITING)

    def _go_on(self) -> None:
        """The lease outlived the outage: upload the rest of the log, then resume the session in the same worktree."""
        self._uploads.upload_rest()
        self._release(with_worktree=False)
        base = {stream: self._held.log_base[stream] + self._held.offsets[stream] for stream in STREAMS}
        self._tasks.prepare_start(self._held, log_base=base, offsets=dict.fromkeys(STREAMS, 0), interrupted=True)

    def _clean_up(self) -> None:
        """Delete what is left of the task. The worktree stays if the task came back by another lease."""
        came_back = len(self._tasks.of_task(self._held.task_id)) > 1
        saved = self._release(with_worktree=not came_back)
        log.info("left a task", task=self._held.task_id, lease=self._held.lease, saved=saved)
        self._context.outbox.delete(self._held)
        self._tasks.forget(self._held)

    _STEPS: ClassVar[Mapping[Step, Callable[["TaskThread"], None]]] = {
        Step.TAKEN: _confirm,
        Step.CONFIRMED: _work,
        Step.RUNNING: _work,
        Step.ENDED: _deliver_receipt,
        Step.REGAINED: _go_on,
        Step.OVER: _clean_up,
    }

    # --- from the start of a run to its end

    def _start(self) -> bool:
        """Start the run; False if it was not started. A repeated start is the same run."""
        self._tasks.wait(self._has_worktree, WORKTREE_SECS)
        if self._held.stop_reason or not self._context.watcher.has_time_for(self._held):
            self._move(Step.OVER if self._held.stop_reason else Step.PAUSED)
            return False
        try:
            self._retry(lambda: self._context.runs.start(self._held))
        except Unreachable as why:
            self._end_with(lost_receipt(self._held, str(why), failure="host_unreachable"))
            return False
        self._move(Step.RUNNING)
        return True

    def _has_worktree(self) -> bool:
        """True if every older lease of the task has left the worktree."""
        return all(other is self._held for other in self._tasks.of_task(self._held.task_id))

    def _watch(self) -> None:
        meter = UsageMeter(self._held, self._context.template, self._context.runs)
        while True:
            status = self._context.watcher.next(self._held)
            if status is None:
                continue
            if not status.is_known:
                return self._end_with(lost_receipt(self._held, "the run's folder is gone from this machine"))
            try:
                self._uploads.upload(status, meter.add(status.logs["stdout"], status.session_notes))
            except RequestRefused as refusal:
                log.warning("a report was refused", task=self._held.task_id, why=str(refusal))
                self._context.heartbeat.send_soon()
            if status.result:
                return self._end(status.result)

    def _end(self, result: Mapping[str, Any]) -> None:
        """A run that the agent ended is paused or over; a run that ended by itself gets a receipt."""
        stop_reason, outcome = self._held.stop_reason, self._read_outcome(result)
        session = outcome.session_id or self._held.session
        if stop_reason not in (None, LEASE_ENDS, AGENT_STOPS):
            self._move(Step.OVER)
        elif stop_reason and result["end"] == "cancelled":
            self._tasks.change(self._held, step=Step.PAUSED, stop_reason=None, session=session)
            self._context.heartbeat.send_soon()
        else:
            usage = outcome.session_usage or self._held.usage_before
            self._tasks.change(self._held, session=session, usage_before=usage)
            self._end_with(make_receipt(self._held, result, outcome))

    def _end_with(self, receipt: Receipt) -> None:
        self._context.outbox.put(self._held, receipt)
        self._tasks.change(self._held, step=Step.ENDED, stop_reason=None)

    def _read_outcome(self, result: Mapping[str, Any]) -> Outcome:
        output = self._retry(lambda: self._context.runs.output(self._held))
        code = 0 if result.get("hung") else result.get("exit_code")
        return read_outcome(
            self._context.template, output, code, self._held.session, self._held.usage_before, result.get("noted")
        )

    # --- after a refusal, and helpers

    def _replace_receipt(self, receipt: Receipt, refusal: RequestRefused) -> None:
        """Claims that were refused are replaced by one failure. If the lease is over, the next heartbeat decides."""
        log.warning("a receipt was refused", task=self._held.task_id, status=refusal.status, why=str(refusal))
        if refusal.status == 400 and not receipt.again:
            return self._context.outbox.put(self._held, replace_refused(receipt, str(refusal)))
        self._await_heartbeat(refusal)

    def _await_heartbeat(self, refusal: RequestRefused) -> None:
        """The lease is over: the next heartbeat brings a review, or says that there is nothing more to do."""
        self._context.outbox.delete(self._held)
        self._move(Step.WAITING if refusal.status == 409 else Step.OVER)
        self._context.heartbeat.send_soon()

    def _move(self, step: Step) -> None:
        self._tasks.change(self._held, step=step)

    def _release(self, with_worktree: bool) -> str | None:
        """Release the run, and the worktree once unpushed work is saved. Returns where it was saved."""
        try:
            return self._retry(lambda: self._context.runs.release(self._held, with_worktree))
        except Unreachable as why:
            log.warning("a run could not be released", run=self._held.run_name, why=str(why))
            return None

    def _retry(self, request: Callable[[], T]) -> T:
        """Send a request to the supervisor, a few times if need be. Raises Unreachable."""
        for _ in range(TRIES - 1):
            try:
                return request()
            except Unreachable as why:
                log.warning("the supervisor failed; retrying", run=self._held.run_name, why=str(why))
                self._tasks.wait(lambda: False, RETRY_SECS)
        return request()

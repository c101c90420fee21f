"""A task's life with us, from its lease to its end: each step is written down, and a restart goes on with it."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import structlog

from app.clis.template import CliTemplate
from app.domain.masking import Mask
from app.domain.run import Outcome, Usage
from workers.agent import boot_clock, receipt
from workers.agent.api_client import Refusal, Server, Unwelcome
from workers.agent.heartbeat import Pulse
from workers.agent.leases import Hold, Holds, Step
from workers.agent.local_runs import Machine
from workers.agent.outbox import Outbox
from workers.agent.run_watcher import LEASE, LEAVING, Lookout
from workers.agent.uploads import STREAMS, Reports
from workers.agent.usage import Ear
from workers.errors import Unreachable
from workers.runs.cli_call import read_outcome

Json = dict[str, Any]
T = TypeVar("T")
TRIES = 3
BREAK_SECS = 5.0
MAY_COME_BACK = ("running", "review_pending")  # a delivered task in these may come back with a review
log = structlog.get_logger()


@dataclass(frozen=True)
class Household:
    """What all lives share. Only as many as there are `slots` run a CLI at the same time."""

    cli: str
    template: CliTemplate
    slots: threading.Semaphore
    holds: Holds
    server: Server
    machine: Machine
    outbox: Outbox
    lookout: Lookout
    pulse: Pulse
    mask: Callable[[], Mask]
    fatal: Callable[[str], None]

    def begin(self, hold: Hold) -> None:
        """Give a task a thread, in which it lives on from the step that it is at."""
        threading.Thread(target=Life(self, hold).live, name=hold.task, daemon=True).start()


class Life:
    """One task."""

    def __init__(self, us: Household, hold: Hold) -> None:
        self._us, self._hold = us, hold
        self._reports = Reports(hold, us.holds, us.server, us.machine, us.mask)

    def live(self) -> None:
        """Step by step, until there is nothing to do before the next news. One thread at a time: news may come while
        the one before is about to find that there is nothing to do."""
        with self._hold.life:
            self._live_on()

    def _live_on(self) -> None:
        while self._us.holds.has(self._hold) and (step := self._STEPS.get(self._hold.step)):
            try:
                step(self)
            except Unwelcome as why:
                return self._us.fatal(str(why))
            except Exception:
                log.exception("a step broke; it is tried again", task=self._hold.task_id, step=self._hold.step)
                self._us.holds.wait(lambda: False, BREAK_SECS)

    # --- the steps

    def _confirm(self) -> None:
        sent = boot_clock.now()
        try:
            told = {"lease": self._hold.lease, "status": "running", "message": "taken"}
            answer = self._reports.insist("status", told)
        except Refusal as no:
            return self._ask_the_pulse(no)
        if answer is None or answer["stop"]:
            return self._move(Step.OVER)
        if self._us.server.welcome:
            self._us.holds.renew(self._hold, sent, self._us.server.welcome.lease_secs)
        self._us.holds.start_anew(self._hold)

    def _work(self) -> None:
        """A slot is taken for as long as the CLI runs."""
        while not self._us.slots.acquire(timeout=1.0):
            if self._hold.stop and self._hold.step is Step.CONFIRMED:
                return self._move(Step.OVER)
        try:
            if self._hold.step is Step.RUNNING or self._start():
                self._watch()
        finally:
            self._us.slots.release()

    def _tell(self) -> None:
        """The whole log first, then the receipt."""
        letter = self._us.outbox.letter(self._hold) or receipt.lost(self._hold, "the agent lost its receipt")
        self._reports.rest_of_log()
        try:
            answer = self._reports.insist("complete", {name: letter[name] for name in letter if name != "again"})
        except Refusal as no:
            return self._not_taken(letter, no)
        if answer is None or answer["status"] not in MAY_COME_BACK:
            return self._move(Step.OVER)
        self._release(with_worktree=False)
        self._us.outbox.drop(self._hold)
        self._move(Step.WAITING)

    def _go_on(self) -> None:
        """The lease outlived the outage: the rest of the log, then the same session again in the same worktree."""
        self._reports.rest_of_log()
        self._release(with_worktree=False)
        base = {stream: self._hold.base[stream] + self._hold.offsets[stream] for stream in STREAMS}
        self._us.holds.start_anew(self._hold, base=base, offsets=dict.fromkeys(STREAMS, 0), cut=True)

    def _leave(self) -> None:
        """Nobody wants it from us any more. The worktree goes, unless the task came to us again."""
        came_again = len(self._us.holds.of_task(self._hold.task_id)) > 1
        saved = self._release(with_worktree=not came_again)
        log.info("left a task", task=self._hold.task_id, lease=self._hold.lease, saved=saved)
        self._us.outbox.drop(self._hold)
        self._us.holds.forget(self._hold)

    _STEPS: ClassVar[Mapping[Step, Callable[["Life"], None]]] = {
        Step.TAKEN: _confirm,
        Step.CONFIRMED: _work,
        Step.RUNNING: _work,
        Step.ENDED: _tell,
        Step.REGAINED: _go_on,
        Step.OVER: _leave,
    }

    # --- from the start of a run to its end

    def _start(self) -> bool:
        """Whether the supervisor has the run now. It is the same run however often we say so."""
        self._us.holds.wait(self._is_alone, 60)
        if self._hold.stop or not self._us.lookout.has_time_for(self._hold):
            self._move(Step.OVER if self._hold.stop else Step.PAUSED)
            return False
        try:
            self._try(lambda: self._us.machine.start(self._hold))
        except Unreachable as why:
            self._end_with(receipt.lost(self._hold, str(why), failure="host_unreachable"))
            return False
        self._move(Step.RUNNING)
        return True

    def _is_alone(self) -> bool:
        """An older lease of the same task has left the worktree."""
        return all(other is self._hold for other in self._us.holds.of_task(self._hold.task_id))

    def _watch(self) -> None:
        ear = Ear(self._hold, self._us.template, self._us.machine)
        while True:
            seen = self._us.lookout.next(self._hold)
            if seen is None:
                continue
            if not seen["known"]:
                return self._end_with(receipt.lost(self._hold, "the run's folder is gone from this machine"))
            try:
                self._reports.keep_up(seen, ear.used(seen["stdout"], seen.get("noted")))
            except Refusal as no:
                log.warning("a report is refused", task=self._hold.task_id, why=str(no))
                self._us.pulse.soon()
            if seen["result"]:
                return self._end(seen["result"])

    def _end(self, result: Json) -> None:
        """What ended by our own hand is paused or over; what ended by itself gets a receipt."""
        stop, outcome = self._hold.stop, self._outcome(result)
        session = outcome.session_id or self._hold.session
        if stop not in (None, LEASE, LEAVING):
            self._move(Step.OVER)
        elif stop and result["end"] == "cancelled":
            self._us.holds.change(self._hold, step=Step.PAUSED, stop=None, session=session)
            self._us.pulse.soon()
        else:
            used = vars(outcome.session_usage) if outcome.session_usage else self._hold.used
            self._us.holds.change(self._hold, session=session, used=used)
            self._end_with(receipt.of(self._hold, result, outcome))

    def _end_with(self, letter: Json) -> None:
        self._us.outbox.put(self._hold, letter)
        self._us.holds.change(self._hold, step=Step.ENDED, stop=None)

    def _outcome(self, result: Json) -> Outcome:
        output = self._try(lambda: self._us.machine.output(self._hold))
        code = 0 if result.get("hung") else result.get("exit_code")
        return read_outcome(
            self._us.template, output, code, self._hold.session, Usage(**self._hold.used), result.get("noted")
        )

    # --- what is left of it

    def _not_taken(self, letter: Json, no: Refusal) -> None:
        """A claim that does not hold is told once more as a failure; a lease that is over is a case for the pulse."""
        log.warning("a receipt is refused", task=self._hold.task_id, status=no.status, why=str(no))
        if no.status == 400 and not letter.get("again"):
            return self._us.outbox.put(self._hold, receipt.refused(letter, str(no)))
        self._ask_the_pulse(no)

    def _ask_the_pulse(self, no: Refusal) -> None:
        """Of a lease that is over the next beat tells: a review came first, or nobody wants it from us any more."""
        self._us.outbox.drop(self._hold)
        self._move(Step.WAITING if no.status == 409 else Step.OVER)
        self._us.pulse.soon()

    def _move(self, step: Step) -> None:
        self._us.holds.change(self._hold, step=step)

    def _release(self, with_worktree: bool) -> str | None:
        """Give the run's folder back, and the worktree: unpushed work is saved first."""
        try:
            return self._try(lambda: self._us.machine.release(self._hold, with_worktree))
        except Unreachable as why:
            log.warning("a run is left lying about", run=self._hold.run, why=str(why))
            return None

    def _try(self, ask: Callable[[], T]) -> T:
        """Ask the supervisor, a few times. Raises Unreachable."""
        for _ in range(TRIES - 1):
            try:
                return ask()
            except Unreachable as why:
                log.warning("the supervisor does not do it; again", run=self._hold.run, why=str(why))
                self._us.holds.wait(lambda: False, 1.0)
        return ask()

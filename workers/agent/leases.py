"""What the agent holds: tasks, each with its lease and how far it has come, written down before anything is done."""

import hashlib
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import structlog

from app.domain.run import slug
from workers.agent import boot_clock
from workers.agent.state_dir import Folder

log = structlog.get_logger()


class Step(StrEnum):
    """How far a task has come with us."""

    TAKEN = "taken"  # dequeued; the server waits for our word
    CONFIRMED = "confirmed"  # ours; its run is about to start
    RUNNING = "running"  # the supervisor has it
    ENDED = "ended"  # its receipt is in the outbox
    WAITING = "waiting"  # told; a review may come
    PAUSED = "paused"  # ended by us, since the lease could not be renewed; the server has the next word
    REGAINED = "regained"  # the lease is still ours: the run goes on
    OVER = "over"  # nobody wants it from us any more


BUSY = frozenset({Step.TAKEN, Step.CONFIRMED, Step.RUNNING, Step.ENDED, Step.REGAINED})


def no_bytes() -> dict[str, int]:
    """The offsets of a log of which nothing is told."""
    return {"stdout": 0, "stderr": 0}


@dataclass
class Hold:
    """A task and the lease by which we have it. `work` is the dequeue's answer; `mark` tells one start of a run from
    the next; `base` is where the log of this start begins in the run's log; `until` is the end of the lease by our
    clock; `cut` says that a start of this run was cut off before; `stop` is why the run must end; `used` is what its
    session had used before; `cli` is whose session that is; who holds `life` works on it."""

    task_id: str
    lease: int
    work: dict[str, Any]
    prompt: str
    session: str | None = None
    step: Step = Step.TAKEN
    mark: str = ""
    base: dict[str, int] = field(default_factory=no_bytes)
    offsets: dict[str, int] = field(default_factory=no_bytes)
    until: float = 0.0
    boot: str = ""
    began: float = 0.0
    cut: bool = False
    stop: str | None = None
    used: dict[str, Any] = field(default_factory=dict)
    cli: str = ""
    life: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def kept(self) -> dict[str, Any]:
        """What is written down of it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}

    @property
    def task(self) -> str:
        """The name of the worktree, the same for each lease of the task."""
        return f"{slug(self.task_id)[-60:]}-{hashlib.sha256(self.task_id.encode()).hexdigest()[:8]}"

    @property
    def run(self) -> str:
        """The name of the run's folder."""
        return f"{self.task}.{self.lease}-{self.mark}"

    @property
    def left(self) -> float:
        """How many seconds the lease still lasts."""
        return self.until - boot_clock.now() if self.boot == boot_clock.boot() else 0.0


def taken(work: dict[str, Any]) -> Hold:
    """A hold as it begins, by the answer to a dequeue."""
    return Hold(work["task_id"], work["lease"], work, work["prompt"]["text"])


def _read(kept: dict[str, Any]) -> Hold | None:
    """A hold as another version of this program may have written it."""
    names = {one.name for one in fields(Hold) if one.init}
    try:
        return Hold(**{name: value for name, value in kept.items() if name in names} | {"step": Step(kept["step"])})
    except (KeyError, TypeError, ValueError) as why:
        log.warning("a task of the state cannot be read; its lease runs out", task=kept.get("task_id"), why=str(why))
        return None


class Holds:
    """All that we hold. Whoever changes one does it here: under one lock, written down at once, told to who waits. The
    sessions that another CLI had on this machine before are not ours to go on with."""

    def __init__(self, folder: Folder, cli: str = "") -> None:
        self._folder, self._cli = folder, cli
        self._changed = threading.Condition(threading.RLock())
        self._holds = [hold for kept in folder.holds() if (hold := _read(kept))]
        for hold in [hold for hold in self._holds if hold.cli not in ("", cli)]:
            self.change(hold, session=None, used={}, cli=cli)

    def all(self) -> list[Hold]:
        with self._changed:
            return list(self._holds)

    def at(self, *steps: Step) -> list[Hold]:
        return [hold for hold in self.all() if hold.step in steps]

    def has(self, hold: Hold) -> bool:
        return any(known is hold for known in self.all())

    def of_task(self, task_id: str) -> list[Hold]:
        return [hold for hold in self.all() if hold.task_id == task_id]

    def add(self, hold: Hold) -> bool:
        """Hold another task; False when this lease is known."""
        with self._changed:
            if any((known.task_id, known.lease) == (hold.task_id, hold.lease) for known in self._holds):
                return False
            hold.cli = self._cli
            self._holds.append(hold)
            self.change(hold)
            return True

    def change(self, hold: Hold, **values: Any) -> None:
        """Change a hold and write it down."""
        with self._changed:
            if values.get("step", hold.step) is not hold.step:
                log.info("step", task=hold.task_id, lease=hold.lease, step=values["step"], was=hold.step)
            former = (hold.task, hold.lease)
            for name, value in values.items():
                setattr(hold, name, value)
            if self.has(hold):
                self._folder.keep_hold(hold.task, hold.lease, hold.kept())
                if former != (hold.task, hold.lease):
                    self._folder.forget_hold(*former)
            self._changed.notify_all()

    def start_anew(self, hold: Hold, **values: Any) -> None:
        """Have the next start be another one than those before."""
        self.change(hold, step=Step.CONFIRMED, mark=secrets.token_hex(3), began=boot_clock.now(), **values)

    def renew(self, hold: Hold, sent: float, lease_secs: float) -> None:
        """The server heard us after `sent`: the lease lasts at least so long from there."""
        before = hold.until if hold.boot == boot_clock.boot() else 0.0
        self.change(hold, until=max(before, sent + lease_secs), boot=boot_clock.boot())

    def forget(self, hold: Hold) -> None:
        with self._changed:
            self._holds = [known for known in self._holds if known is not hold]
            self._folder.forget_hold(hold.task, hold.lease)
            self._changed.notify_all()

    def wait(self, happened: Callable[[], bool], secs: float) -> bool:
        """Wait until something is so, asking after each change; False after so many seconds."""
        with self._changed:
            return self._changed.wait_for(happened, secs)

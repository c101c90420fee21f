"""Keeps the tasks that the agent holds, each with its lease and step; every change is saved before it takes effect."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import structlog

from app.domain.run import Usage, slug
from workers.agent import boot_clock
from workers.agent.messages import Work
from workers.agent.state_dir import StateDir

log = structlog.get_logger()


class Step(StrEnum):
    """How far the agent is with a task."""

    TAKEN = "taken"  # dequeued, not confirmed
    CONFIRMED = "confirmed"  # its run is about to start
    RUNNING = "running"  # the supervisor runs it
    ENDED = "ended"  # its receipt is in the outbox
    WAITING = "waiting"  # the receipt was delivered; a review may come
    PAUSED = "paused"  # the agent ended the run, since the lease was not renewed; the server decides
    REGAINED = "regained"  # the lease was renewed after all: the run goes on
    OVER = "over"  # nothing more to do but to clean up


BUSY = frozenset({Step.TAKEN, Step.CONFIRMED, Step.RUNNING, Step.ENDED, Step.REGAINED})


def no_bytes() -> dict[str, int]:
    """The offsets of a log of which nothing was uploaded."""
    return {"stdout": 0, "stderr": 0}


@dataclass
class HeldTask:
    """A task and the lease by which the agent holds it. Only `HeldTasks` changes one."""

    task_id: str
    lease: int
    work: Work
    prompt: str  # what the CLI is told by this lease
    session: str | None = None  # of the CLI, to resume
    step: Step = Step.TAKEN
    start_id: str = ""  # differs for each start of a run
    log_base: dict[str, int] = field(default_factory=no_bytes)  # where this start's log begins in the run's log
    offsets: dict[str, int] = field(default_factory=no_bytes)  # bytes of this start's log that were uploaded
    lease_until: float = 0.0  # on the boot clock
    boot_id: str = ""  # the boot that `lease_until` counts from
    started_at: float = 0.0  # on the boot clock
    interrupted: bool = False  # a start of this run was ended before
    stop_reason: str | None = None  # why the run must end
    usage_before: Usage = field(default_factory=Usage)  # of the session, before this run
    cli: str = ""  # the CLI that the session belongs to
    lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @classmethod
    def taken(cls, work: Work) -> "HeldTask":
        """A task that was just dequeued."""
        return cls(work.task_id, work.lease, work, work.prompt)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "HeldTask":
        """Read what `as_json` made, in this version or another. Raises KeyError, TypeError, ValueError."""
        given = {_FIELDS[name]: value for name, value in saved.items() if name in _FIELDS}
        given |= {"step": Step(saved["step"]), "work": Work.from_json(saved["work"])}
        return cls(**given | {"usage_before": Usage(**saved.get("used") or {})})

    def as_json(self) -> dict[str, object]:
        values: dict[str, object] = {saved: getattr(self, name) for saved, name in _FIELDS.items()}
        return values | {"work": self.work.as_json(), "used": vars(self.usage_before)}

    @property
    def worktree(self) -> str:
        """The name of the worktree, the same for each lease of the task."""
        return f"{slug(self.task_id)[-60:]}-{hashlib.sha256(self.task_id.encode()).hexdigest()[:8]}"

    @property
    def run_name(self) -> str:
        """The name of the run's folder."""
        return f"{self.worktree}.{self.lease}-{self.start_id}"

    @property
    def lease_secs_left(self) -> float:
        return self.lease_until - boot_clock.now() if self.boot_id == boot_clock.boot_id() else 0.0


# Names in the state folder that differ from the fields: agents of earlier versions wrote them.
_SAVED_NAMES = {
    "start_id": "mark", "log_base": "base", "lease_until": "until", "boot_id": "boot", "started_at": "began",
    "interrupted": "cut", "stop_reason": "stop", "usage_before": "used",
}  # fmt: skip
_FIELDS = {_SAVED_NAMES.get(one.name, one.name): one.name for one in fields(HeldTask) if one.init}


def _load(saved: Mapping[str, Any]) -> HeldTask | None:
    try:
        return HeldTask.from_json(saved)
    except (KeyError, TypeError, ValueError) as why:
        log.warning("a saved task cannot be read; its lease will expire", task=saved.get("task_id"), why=str(why))
        return None


class HeldTasks:
    """All tasks that the agent holds. Threads wait here for changes.

    Sessions that another CLI left on this machine are dropped: `cli` cannot resume them.
    """

    def __init__(self, state: StateDir, cli: str = "") -> None:
        self._state, self._cli = state, cli
        self._changed = threading.Condition(threading.RLock())
        self._tasks = [held for saved in state.tasks() if (held := _load(saved))]
        for held in [held for held in self._tasks if held.cli not in ("", cli)]:
            self.change(held, session=None, usage_before=Usage(), cli=cli)

    def all(self) -> list[HeldTask]:
        with self._changed:
            return list(self._tasks)

    def at(self, *steps: Step) -> list[HeldTask]:
        return [held for held in self.all() if held.step in steps]

    def has(self, held: HeldTask) -> bool:
        return any(known is held for known in self.all())

    def of_task(self, task_id: str) -> list[HeldTask]:
        return [held for held in self.all() if held.task_id == task_id]

    def add(self, held: HeldTask) -> bool:
        """Hold another task; False if this lease is held already."""
        with self._changed:
            if any((known.task_id, known.lease) == (held.task_id, held.lease) for known in self._tasks):
                return False
            held.cli = self._cli
            self._tasks.append(held)
            self.change(held)
            return True

    def change(self, held: HeldTask, **values: Any) -> None:
        """Set fields of a held task, save it, and wake the threads that wait."""
        with self._changed:
            if values.get("step", held.step) is not held.step:
                log.info("step", task=held.task_id, lease=held.lease, step=values["step"], was=held.step)
            former = (held.worktree, held.lease)
            for name, value in values.items():
                setattr(held, name, value)
            if self.has(held):
                self._state.save_task(held.worktree, held.lease, held.as_json())
                if former != (held.worktree, held.lease):
                    self._state.delete_task(*former)
            self._changed.notify_all()

    def prepare_start(self, held: HeldTask, **values: Any) -> None:
        """Give the next start of the run an id of its own."""
        start_id = secrets.token_hex(3)
        self.change(held, step=Step.CONFIRMED, start_id=start_id, started_at=boot_clock.now(), **values)

    def renew(self, held: HeldTask, sent_at: float, lease_secs: float) -> None:
        """The server answered a request sent at `sent_at`: the lease lasts at least `lease_secs` from then."""
        before = held.lease_until if held.boot_id == boot_clock.boot_id() else 0.0
        self.change(held, lease_until=max(before, sent_at + lease_secs), boot_id=boot_clock.boot_id())

    def forget(self, held: HeldTask) -> None:
        with self._changed:
            self._tasks = [known for known in self._tasks if known is not held]
            self._state.delete_task(held.worktree, held.lease)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], secs: float) -> bool:
        """Wait until `condition` holds, checked after each change; False after `secs` seconds."""
        with self._changed:
            return self._changed.wait_for(condition, secs)

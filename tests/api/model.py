"""Models what the server should do with tasks; the state machine compares the server with this model."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

CONFIRM, SILENCE, AWAY = timedelta(seconds=30), timedelta(seconds=180), timedelta(seconds=30)
RESET = timedelta(seconds=100)  # how soon a limit that was met is over, as its agent tells
NEVER_CONFIRMED, MOST_RETRIES = 5, 2
WORKING = ("assigned", "running")


@dataclass
class Work:
    """A run that has not ended: whose it is, how long it may be silent, whether its agent knows of it."""

    who: str
    deadline: datetime
    on_host: bool = False
    started: bool = False
    is_known: bool = True


@dataclass
class Task:
    """A task. `due` is when the clock moves it next; `run` is the number of its newest run."""

    key: int
    needs: frozenset[str]
    mode: str
    priority: int
    state: str = "created"
    ready: bool = True
    due: datetime | None = None
    run: int = 0
    retries: int = 0
    unconfirmed: int = 0


@dataclass
class Model:
    """Every task, and every run that has not ended, by (task id, number)."""

    tasks: dict[str, Task] = field(default_factory=dict)
    open: dict[tuple[str, int], Work] = field(default_factory=dict)
    over: dict[tuple[str, int], str] = field(default_factory=dict)  # runs that ended and were not lost: whose they were
    checked: datetime | None = None

    # --- taking

    def queue(self, can: frozenset[str]) -> list[str]:
        """What an agent can be given, in the order in which it is."""
        fits = [
            (-task.priority, task.key, id_)
            for id_, task in self.tasks.items()
            if task.state == "created" and task.ready and task.mode != "ssh_cli" and task.needs <= can
        ]
        return [id_ for _, _, id_ in sorted(fits)]

    def held_by(self, who: str) -> list[tuple[str, int]]:
        return [held for held, work in self.open.items() if work.who == who]

    def unknown_to(self, who: str) -> list[tuple[str, int]]:
        return [
            held for held in self.held_by(who) if not self.open[held].is_known and self.is_current(*held, ("assigned",))
        ]

    def take(self, id_: str, work: Work) -> None:
        task = self.tasks[id_]
        task.mode = "ssh_cli" if work.on_host else "http_pull"
        task.run += 1
        self._move(task, "assigned")
        self.open[id_, task.run] = work

    def is_current(self, id_: str, run: int, states: tuple[str, ...] = WORKING) -> bool:
        return self.tasks[id_].run == run and self.tasks[id_].state in states

    # --- telling

    def alive(self, id_: str, run: int, at: datetime) -> None:
        work, task = self.open[id_, run], self.tasks[id_]
        work.deadline, work.started = at + SILENCE, True
        if self.is_current(id_, run, ("assigned",)):
            task.unconfirmed = 0
            self._move(task, "running")

    def beat(self, who: str, at: datetime) -> None:
        for held in self.held_by(who):
            if not self.is_current(*held):
                self.over[held] = self.open.pop(held).who
            elif self.tasks[held[0]].state == "running":
                self.open[held].deadline = at + SILENCE

    def end(self, id_: str, run: int, how: str, at: datetime) -> None:
        self.over[id_, run] = self.open.pop((id_, run)).who
        task = self.tasks[id_]
        if not self.is_current(id_, run):
            return
        if how == "failed" and task.retries < MOST_RETRIES:
            self._move(task, "created", due=at + timedelta(seconds=5) * 2**task.retries)
            task.retries += 1
        elif how == "limit":
            self._move(task, "parked", due=at + RESET + timedelta(minutes=1))
        else:
            self._move(task, "completed" if how == "completed" else "failed")

    def give_back(self, who: str) -> list[str]:
        """What went back to the queue; what is over already does not."""
        back = []
        for id_, run in self.held_by(who):
            del self.open[id_, run]
            if self.is_current(id_, run):
                self._move(self.tasks[id_], "created", ready=True)
                back.append(id_)
        return back

    # --- asking

    def cancel(self, id_: str) -> bool:
        task = self.tasks[id_]
        if task.state in ("completed", "failed"):
            return False
        if task.state != "cancelled":
            self._move(task, "cancelled")
        return True

    def retry(self, id_: str) -> bool:
        task = self.tasks[id_]
        if task.state in ("failed", "agent_lost", "cancelled"):
            task.retries = task.unconfirmed = 0
        elif not (task.state == "parked" or (task.state == "created" and not task.ready)):
            return False
        self._move(task, "created", ready=True)
        return True

    # --- the clock

    def check_time(self, at: datetime) -> None:
        """Expire silent runs and wake tasks; hosts get back the time for which nobody checked."""
        gap = at - self.checked if self.checked else timedelta()
        for work in self.open.values():
            if work.on_host and gap > AWAY:
                work.deadline += gap
        self.checked = at
        for (id_, run), work in sorted(self.open.items(), key=lambda pair: pair[1].deadline):
            if work.deadline <= at:
                del self.open[id_, run]
                self._expire(id_, run, at)
        for task in self.tasks.values():
            if task.due and task.due <= at:
                self._wake(task)

    def _expire(self, id_: str, run: int, at: datetime) -> None:
        task = self.tasks[id_]
        if self.is_current(id_, run, ("running",)):
            self._move(task, "agent_lost", due=at)
        elif self.is_current(id_, run, ("assigned",)) and task.unconfirmed + 1 >= NEVER_CONFIRMED:
            self._move(task, "failed")
        elif self.is_current(id_, run, ("assigned",)):
            task.unconfirmed += 1
            self._move(task, "created", ready=True)

    def _wake(self, task: Task) -> None:
        if task.state == "agent_lost" and task.retries >= MOST_RETRIES:
            return self._move(task, "failed")
        task.retries += task.state == "agent_lost"
        self._move(task, "created", ready=True)

    @staticmethod
    def _move(task: Task, state: str, ready: bool = False, due: datetime | None = None) -> None:
        task.state, task.ready, task.due = state, ready, due

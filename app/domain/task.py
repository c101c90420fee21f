"""Defines a task and its states: lifecycle.decide computes the next state, store.tasks.record writes it."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum


class State(StrEnum):
    """The state of a task."""

    CREATED = "created"
    ASSIGNED = "assigned"
    RUNNING = "running"
    REVIEW_PENDING = "review_pending"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    AGENT_LOST = "agent_lost"
    CANCELLED = "cancelled"


LIVE = frozenset({State.CREATED, State.ASSIGNED, State.RUNNING, State.REVIEW_PENDING, State.PARKED})
WORKING = frozenset({State.ASSIGNED, State.RUNNING})


class Mode(StrEnum):
    """The kind of runner: a host that the fleet reaches, an agent that pulls, or the first of both."""

    UNDECIDED = "undecided"
    SSH_CLI = "ssh_cli"
    HTTP_PULL = "http_pull"


class Priority(IntEnum):
    """Tasks of higher priority go first. People write the word."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> "Priority":
        """The priority of this word; NORMAL for an unknown word."""
        return cls.__members__.get(word.strip().upper(), cls.NORMAL)


@dataclass(frozen=True)
class Task:
    """One row of the table `tasks`: everything about a task that facts can change.

    `version` is the number of the task's last event. `ready`: it may be taken now. `due_at` is the next moment at
    which a timer changes it. `head` is the newest commit that was offered for review. `run` is the number of the
    newest run: its fence.
    """

    id: int
    task_id: str
    state: State
    mode: Mode
    priority: Priority
    requirement_set_id: int
    version: int
    ready: bool
    created_at: datetime
    moved_at: datetime
    forge: str | None = None
    repository_id: int | None = None
    issue_number: int | None = None
    branch: str | None = None
    wants_pull: bool = True
    max_retries: int = 2
    retry_count: int = 0
    review_count: int = 0
    unconfirmed: int = 0
    run: int = 0
    host_id: str | None = None
    agent_id: str | None = None
    due_at: datetime | None = None
    reason: str | None = None
    session: str | None = None
    pr_number: int | None = None
    pr_title: str | None = None
    pr_url: str | None = None
    head: str | None = None
    assigned_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def retries_left(self) -> bool:
        return self.retry_count < self.max_retries

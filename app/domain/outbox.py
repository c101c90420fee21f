"""An outbox entry: a side effect to perform after a fact, written in the same transaction as the fact's event."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.lifecycle import OutboxKind


@dataclass(frozen=True)
class OutboxEntry:
    """One row of the outbox table."""

    id: int
    task_pk: int  # the task's key, Task.id
    seq: int  # the number of the event that wrote it
    kind: OutboxKind
    run: int  # the task's newest run when it was written; 0 before the first
    due_at: datetime  # not tried before this moment
    tries: int  # how often it was taken
    held_until: datetime | None = None  # taken by a process that must finish by then
    done_at: datetime | None = None
    given_up_at: datetime | None = None  # the other side refused it: it is not tried again
    error: str | None = None  # why the newest try failed

"""An event: a fact that changed a task, stored append-only and numbered per task."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State


@dataclass(frozen=True)
class Event:
    """One row of the events table."""

    task_pk: int  # the task's key, Task.id
    seq: int  # 1, 2, ... per task: the task's version after it
    kind: FactKind
    from_state: State | None  # None for the first event, which creates the task
    to_state: State
    run: int | None  # the number of the run that reported the fact
    key: str | None  # a fact with this key is not recorded again
    detail: Mapping[str, Any]  # JSON; which names it has depends on the kind
    at: datetime  # UTC

    @property
    def fact(self) -> Fact:
        return Fact(self.kind, self.detail, run=self.run, key=self.key)

"""Defines the update of a task that an agent receives: stop, renewed lease, review to answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from app.domain.lifecycle import FactKind
from app.domain.task import State
from app.store import views


class ReviewComment(TypedDict):
    """A comment of a review on a line of a file."""

    path: str
    line: int | None
    text: str


class Feedback(TypedDict):
    """The review that a run must answer. `prompt` is complete; `push` says how to push, None without a repository."""

    kind: FactKind
    by: str
    text: str
    comments: list[ReviewComment]
    prompt: str
    push: Mapping[str, object] | None


@dataclass(frozen=True)
class TaskUpdate:
    """The answer to an agent about one task that it holds or names."""

    task_id: str
    lease: int
    status: State | None
    stop: bool
    lease_expires_at: datetime | None = None
    feedback: Feedback | None = None

    def as_json(self) -> dict[str, object]:
        shown = vars(self) | {"lease_expires_at": views.moment(self.lease_expires_at)}
        return {name: value for name, value in shown.items() if name != "feedback" or value is not None}

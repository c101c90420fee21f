"""Records facts about pull requests and issues; drops a fact that changes nothing."""

from collections.abc import Callable

from sqlalchemy import Connection

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import Task
from app.ports import Fleet
from app.store import tasks

OFFERS = (FactKind.PULL_OPENED, FactKind.PULL_REOPENED)


def record_if_news(fleet: Fleet, task: Task, fact: Fact, beside: Callable[[Connection], None] | None = None) -> Task:
    """Record a fact from the forge; returns the task as it is now.

    `beside` runs in the same transaction, if the fact changes the task. A fact that the task's state does not allow is
    dropped: it may have been received before.
    """
    try:
        with fleet.engine.begin() as conn:
            now = tasks.record(conn, task.id, fact, fleet.clock())
            if beside and now.version > task.version:
                beside(conn)
            return now
    except Refused as refusal:
        if refusal.kind is not Kind.INVALID:
            raise
        return task

"""Records facts about pull requests and issues: a fact that changes nothing is dropped."""

from collections.abc import Callable

from sqlalchemy import Connection

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import Task
from app.ports import Fleet
from app.store import tasks

OFFERS = (FactKind.PULL_OPENED, FactKind.PULL_REOPENED)


def record_if_news(fleet: Fleet, task: Task, fact: Fact, beside: Callable[[Connection], None] | None = None) -> Task:
    """Record what the forge says, and where that moves the task what goes with it. What moves nothing now is no error:
    it may have been heard before."""
    try:
        with fleet.engine.begin() as conn:
            heard = tasks.record(conn, task.id, fact, fleet.clock())
            if beside and heard.version > task.version:
                beside(conn)
            return heard
    except Refused as refusal:
        if refusal.kind is not Kind.INVALID:
            raise
        return task

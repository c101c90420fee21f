"""Delivers outbox entries to the forge: pull requests, comments, labels, receipts. Each first checks if it is done."""

from collections.abc import Callable

import structlog

from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Fact, FactKind, OutboxKind
from app.domain.outbox import OutboxEntry
from app.domain.task import WORKING, Task
from app.ports import Fleet
from app.services.outbox import comments, pull_requests
from app.store import outbox, tasks

log = structlog.get_logger()


def deliver_due(fleet: Fleet) -> int:
    """Deliver every entry for a forge that is due; returns how many were tried."""
    with fleet.engine.begin() as conn:
        entries = outbox.take(conn, HANDLERS, fleet.clock())
    for entry in entries:
        deliver_one(fleet, entry, HANDLERS[OutboxKind(entry.kind)])
    return len(entries)


def deliver_one(fleet: Fleet, entry: OutboxEntry, how: Callable[[Fleet, Task, OutboxEntry], None]) -> None:
    """Deliver one entry: done, or postponed because nobody answered, or given up because the answer was no."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, entry.task_pk)
    try:
        how(fleet, task, entry)
    except Unavailable as later:
        _postpone(fleet, entry, str(later), later.retry_after)
    except Refused as no:
        if no.kind is Kind.UNAUTHORIZED:  # a token is being rotated
            _postpone(fleet, entry, str(no))
        else:
            _give_up(fleet, entry, str(no))
    except (TypeError, LookupError, ValueError, AttributeError) as odd:
        log.exception("an outbox entry could not be delivered", entry=entry.kind, task=task.task_id)
        _postpone(fleet, entry, f"an answer nobody could read: {odd!r}")
    else:
        with fleet.engine.begin() as conn:
            outbox.done(conn, entry.id, fleet.clock())


HANDLERS: dict[OutboxKind, Callable[[Fleet, Task, OutboxEntry], None]] = {
    OutboxKind.OPEN_PULL: pull_requests.open_pull,
    OutboxKind.ASK_REVIEW: pull_requests.ask_review,
    OutboxKind.STATUS: pull_requests.set_status,
    OutboxKind.COMMENT: comments.comment,
    OutboxKind.NOTE: comments.note,
    OutboxKind.ANSWER: comments.answer,
    OutboxKind.LABEL: comments.label,
    OutboxKind.ASSIGN: comments.assign,
    OutboxKind.RECEIPT: comments.write_receipt,
}


def _postpone(fleet: Fleet, entry: OutboxEntry, why: str, wait: float | None = None) -> None:
    """An outage, however long, ends no entry: it is tried again until there is an answer."""
    with fleet.engine.begin() as conn:
        outbox.postpone(conn, entry, fleet.clock(), fleet.mask.text(why), wait)


def _give_up(fleet: Fleet, entry: OutboxEntry, why: str) -> None:
    """Give up an entry that the forge refused; `fleet task show` shows it.

    A task without its pull request cannot go on: it fails in the same transaction, so no crash leaves it running."""
    told = fleet.mask.text(why)[:2000]
    with fleet.engine.begin() as conn:
        outbox.give_up(conn, entry.id, fleet.clock(), told)
        task = tasks.load(conn, entry.task_pk)
        if entry.kind == OutboxKind.OPEN_PULL and task.state in WORKING and task.run == entry.run:
            detail = {"reason": "pull_refused", "why": told, "transient": False}
            tasks.record(conn, task.id, Fact(FactKind.FAILED, detail, run=task.run), fleet.clock())

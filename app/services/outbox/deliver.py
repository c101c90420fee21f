"""Pays what we owe the forge: pull requests, comments, labels, receipts. Each looks first whether it was paid."""

from collections.abc import Callable

import structlog

from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Fact, FactKind, OutboxKind
from app.domain.task import WORKING, Task
from app.ports import Fleet
from app.services.outbox import comments, pull_requests
from app.store import outbox, tasks
from app.store.tables import Row

log = structlog.get_logger()


def settle(fleet: Fleet) -> int:
    """Pay every debt to a forge that is due; returns how many were tried."""
    with fleet.engine.begin() as conn:
        owed = outbox.take(conn, PAY, fleet.clock())
    for debt in owed:
        pay(fleet, debt, PAY[OutboxKind(debt["kind"])])
    return len(owed)


def pay(fleet: Fleet, debt: Row, how: Callable[[Fleet, Task, Row], None]) -> None:
    """Pay one debt: done, or postponed because nobody answered, or given up because the answer was no."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, debt["task_pk"])
    try:
        how(fleet, task, debt)
    except Unavailable as later:
        _pay_later(fleet, debt, str(later), later.retry_after)
    except Refused as no:
        if no.kind is Kind.UNAUTHORIZED:  # a token is being rotated
            _pay_later(fleet, debt, str(no))
        else:
            _give_up(fleet, debt, str(no))
    except (TypeError, LookupError, ValueError, AttributeError) as odd:
        log.exception("a debt could not be paid", debt=debt["kind"], task=task.task_id)
        _pay_later(fleet, debt, f"an answer nobody could read: {odd!r}")
    else:
        with fleet.engine.begin() as conn:
            outbox.paid(conn, debt["id"], fleet.clock())


PAY: dict[OutboxKind, Callable[[Fleet, Task, Row], None]] = {
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


def _pay_later(fleet: Fleet, debt: Row, why: str, wait: float | None = None) -> None:
    """An outage, however long, ends no debt: it is tried again until somebody answers."""
    with fleet.engine.begin() as conn:
        outbox.postpone(conn, debt, fleet.clock(), fleet.mask.text(why), wait)


def _give_up(fleet: Fleet, debt: Row, why: str) -> None:
    """A debt that was refused is given up where all can see it. Without its pull request a task cannot go on: it fails
    in the same transaction, so that no death in between leaves it running for ever."""
    told = fleet.mask.text(why)[:2000]
    with fleet.engine.begin() as conn:
        outbox.give_up(conn, debt["id"], fleet.clock(), told)
        task = tasks.load(conn, debt["task_pk"])
        if debt["kind"] == OutboxKind.OPEN_PULL and task.state in WORKING and task.run == debt["run"]:
            detail = {"reason": "pull_refused", "why": told, "transient": False}
            tasks.record(conn, task.id, Fact(FactKind.FAILED, detail, run=task.run), fleet.clock())

"""Delivers outbox entries to the forge: pull requests, comments, labels, receipts. Each first checks if it is done."""

from collections.abc import Callable, Mapping
from functools import partial

from app.domain.lifecycle import Fact, FactKind, OutboxKind
from app.domain.outbox import OutboxEntry
from app.domain.task import WORKING, Task
from app.ports import Fleet
from app.services.attempts import Failure, attempt
from app.services.outbox import comments, labels, open_pull_request, post_receipt, review_request
from app.store import outbox, tasks

Handler = Callable[[Fleet, Task, OutboxEntry], None]


def deliver_due(fleet: Fleet) -> int:
    """Deliver every entry for a forge that is due; returns how many were tried."""
    with fleet.engine.begin() as conn:
        entries = outbox.take(conn, HANDLERS, fleet.clock())
    for entry in entries:
        deliver_one(fleet, entry, HANDLERS[entry.kind])
    return len(entries)


def deliver_one(fleet: Fleet, entry: OutboxEntry, handler: Handler) -> None:
    """Deliver one entry: afterwards it is done, postponed or given up (app/services/attempts.py)."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, entry.task_pk)
    failure = attempt(partial(handler, fleet, task, entry), outbox_entry=entry.kind, task=task.task_id)
    if isinstance(failure, Failure) and failure.final:
        return _give_up(fleet, entry, failure.why)
    with fleet.engine.begin() as conn:
        if failure:
            outbox.postpone(conn, entry, fleet.clock(), fleet.mask.text(failure.why), failure.retry_after)
        else:
            outbox.done(conn, entry.id, fleet.clock())


HANDLERS: Mapping[OutboxKind, Handler] = {
    OutboxKind.OPEN_PULL: open_pull_request.open_pull,
    OutboxKind.ASK_REVIEW: review_request.request_reviews,
    OutboxKind.STATUS: review_request.set_commit_status,
    OutboxKind.COMMENT: comments.write_status,
    OutboxKind.NOTE: comments.write_edit_note,
    OutboxKind.ANSWER: comments.answer_reviewer,
    OutboxKind.LABEL: labels.set_status_label,
    OutboxKind.ASSIGN: labels.assign_bot,
    OutboxKind.RECEIPT: post_receipt.write_receipt,
}


def _give_up(fleet: Fleet, entry: OutboxEntry, why: str) -> None:
    """Give up an entry that was refused; `fleet task show` shows it.

    A task without its pull request cannot go on: it fails in the same transaction, so no crash leaves it running.
    """
    masked = fleet.mask.text(why)[:2000]
    with fleet.engine.begin() as conn:
        outbox.give_up(conn, entry.id, fleet.clock(), masked)
        task = tasks.load(conn, entry.task_pk)
        if entry.kind is OutboxKind.OPEN_PULL and task.state in WORKING and task.run == entry.run:
            detail = {"reason": "pull_refused", "why": masked, "transient": False}
            tasks.record(conn, task.id, Fact(FactKind.FAILED, detail, run=task.run), fleet.clock())

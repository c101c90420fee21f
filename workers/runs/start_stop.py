"""Starts and stops runs on hosts: delivers the outbox entries for hosts. Repeating a step does no harm.

When a host does not answer a start: the entry is retried. If the request may have arrived, the run keeps its lease
until the host is back; if it surely did not, the short deadline for confirming counts again.
"""

from concurrent.futures import wait

import structlog

from app.domain.errors import Kind, Refused, Unavailable
from app.domain.host import Machine
from app.domain.lifecycle import OutboxKind
from app.domain.outbox import OutboxEntry
from app.domain.run import Run
from app.services.dispatch import credentials, start_order
from app.services.dispatch.start_order import Order
from app.services.outbox import deliver
from app.services.runs import report
from app.store import host_polls, hosts, outbox, runs
from workers.errors import Unable, Unreachable
from workers.runs.cli_call import GRACE_SECS
from workers.runs.start_request import start_request
from workers.threads import Busy
from workers.worker import Worker

BUSY_SECS = 0.3  # until the next try if too many requests to the host are open
log = structlog.get_logger()


def deliver_due(worker: Worker) -> int:
    """Deliver the starts and stops that are due, several at once; returns how many were tried.

    Waits Limits.start_wait_secs; a slow host keeps only its own threads.
    """
    fleet, threads = worker.fleet, worker.start_threads
    with fleet.engine.begin() as conn:
        entries = outbox.take(conn, (OutboxKind.START, OutboxKind.STOP), fleet.clock(), most=threads.free())
    wait([threads.submit(_deliver, worker, entry) for entry in entries], timeout=worker.limits.start_wait_secs)
    return len(entries)


def _deliver(worker: Worker, entry: OutboxEntry) -> None:
    try:
        if entry.kind == OutboxKind.START:
            _start(worker, entry)
        else:
            deliver.deliver_one(worker.fleet, entry, lambda _, task, entry: _stop(worker, task.id, entry.run))
    except Exception:  # any worker takes it again after a while
        log.exception("an outbox entry for a host could not be delivered", kind=entry.kind, task=entry.task_pk)


def _start(worker: Worker, entry: OutboxEntry) -> None:
    order = None
    try:
        order = start_order.order(worker.fleet, entry)
        if order is not None:
            with worker.start_threads.at_host(order.host.host_id):
                if report.may_start(worker.fleet, order.run):
                    _request_start(worker, order)
    except Busy as busy:
        return _postpone(worker, entry, str(busy), BUSY_SECS)
    except Unavailable as later:
        return _postpone(worker, entry, str(later))
    except Unreachable as why:
        return _retry_start(worker, entry, order.run if order else None, why)
    except Refused as no:
        return _give_up(worker, entry, no)
    with worker.fleet.engine.begin() as conn:
        outbox.done(conn, entry.id, worker.fleet.clock())


def _request_start(worker: Worker, order: Order) -> None:
    """Request the start. A host that knows the run says so: its process is adopted."""
    fleet = worker.fleet
    spent = credentials.why_not_start(fleet, order.run)
    if spent:
        return report.parked(fleet, order.run, spent)
    answer = worker.hosts.request(order.host, "start", start_request(order, fleet.config.log_limit_mb))
    if answer.get("state") in ("started", "known"):
        report.started(fleet, order.run)
        with fleet.engine.begin() as conn:
            host_polls.hurry(conn, order.host.host_id, fleet.clock())
    log.info("start", run=order.run.name, host=order.host.host_id, answer=answer.get("state"))


def _postpone(worker: Worker, entry: OutboxEntry, why: str, secs: float | None = None) -> None:
    """Retry later. The run's deadline decides when it is too late; an outdated start is marked done unsent."""
    fleet = worker.fleet
    with fleet.engine.begin() as conn:
        outbox.postpone(conn, entry, fleet.clock(), fleet.mask.text(why), secs)


def _retry_start(worker: Worker, entry: OutboxEntry, run: Run | None, why: Unreachable) -> None:
    """Retry a start that got no answer."""
    if run is not None and (isinstance(why, Unable) or why.not_sent):
        report.restore_deadline(worker.fleet, run)
    _postpone(worker, entry, str(why))


def _give_up(worker: Worker, entry: OutboxEntry, no: Refused) -> None:
    fleet, why = worker.fleet, str(no)
    with fleet.engine.begin() as conn:
        outbox.give_up(conn, entry.id, fleet.clock(), fleet.mask.text(why))
        run = runs.get(conn, entry.task_pk, entry.run)
    if run is not None:
        report.failed(fleet, run, "cli_missing" if no.kind is Kind.UNKNOWN else "cannot_start", why, transient=False)


def _stop(worker: Worker, task_pk: int, newest: int) -> None:
    """Cancel the open runs of a task up to number `newest`. Raises Unavailable if a host did not answer."""
    with worker.fleet.engine.begin() as conn:
        going = [run for run in runs.of_task(conn, task_pk) if run.host_id and run.number <= newest and not run.result]
        machines = hosts.machines(conn, {run.host_id or "" for run in going})
    failures: list[Unavailable] = []
    for run in going:
        try:
            if machine := machines.get(run.host_id or ""):
                _cancel(worker, machine, run)
        except Unavailable as later:  # cancel the others all the same
            failures.append(later)
    if failures:
        raise failures[0]


def _cancel(worker: Worker, machine: Machine, run: Run) -> None:
    try:
        answer = worker.hosts.request(machine, "cancel", {"run": run.name, "grace_secs": GRACE_SECS})
    except Unreachable as why:
        raise Unavailable(str(why)) from why
    log.info("cancel", run=run.name, host=machine.host_id, answer=answer.get("state"))

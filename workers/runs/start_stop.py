"""Starts, finishes and cancels runs on hosts. Each step may be repeated: the host remembers what it was told."""

from collections.abc import Mapping
from concurrent.futures import wait
from typing import Any

import structlog

from app.domain.errors import Kind, Refused, Unavailable
from app.domain.host import Fitness
from app.domain.lifecycle import OutboxKind
from app.ports import Fleet
from app.services.dispatch import credentials, host_health, start_order
from app.services.outbox import deliver
from app.services.runs import recover, report
from app.store import host_polls, outbox, runs
from app.store import hosts as host_rows
from app.store.tables import Row
from workers.hosts import client
from workers.hosts.client import Unable, Unreachable
from workers.runs import outbox_threads, output, start_request
from workers.runs.outbox_threads import Busy

GRACE_SECS = 10
WAIT_SECS = 5.0  # how long a round waits for what it sent to hosts
SOON_SECS = 0.3
log = structlog.get_logger()


def deliver_due(fleet: Fleet) -> int:
    """Deliver the outbox entries to hosts that are due, starts and stops, several at once; returns how many were tried.
    An entry for a host that does not answer is left to its thread."""
    with fleet.engine.begin() as conn:
        entries = outbox.take(conn, (OutboxKind.START, OutboxKind.STOP), fleet.clock(), most=outbox_threads.crew.free())
    wait([outbox_threads.crew.send(_deliver, fleet, entry) for entry in entries], timeout=WAIT_SECS)
    return len(entries)


def _deliver(fleet: Fleet, entry: Row) -> None:
    try:
        if entry["kind"] == OutboxKind.START:
            _start(fleet, entry)
        else:
            deliver.deliver_one(fleet, entry, lambda fleet, task, entry: _stop(fleet, task.id, entry["run"]))
    except Exception:  # it is ours for a while yet, and then anybody's
        log.exception("an outbox entry for a host could not be delivered", kind=entry["kind"], task=entry["task_pk"])


def _start(fleet: Fleet, entry: Row) -> None:
    order = None
    try:
        order = start_order.order(fleet, entry)
        if order is not None:
            with outbox_threads.crew.at(order.host["host_id"]):
                if report.may_start(fleet, order.run):
                    _carry_out(fleet, order)
    except Busy as soon:
        return _start_later(fleet, entry, str(soon), SOON_SECS)
    except Unavailable as later:
        return _start_later(fleet, entry, str(later))
    except Unreachable as unknown:
        return _ask_again(fleet, entry, order.run if order else None, unknown)
    except Refused as no:
        return _cannot_start(fleet, entry, no)
    with fleet.engine.begin() as conn:
        outbox.done(conn, entry["id"], fleet.clock())


def _carry_out(fleet: Fleet, order: start_order.Order) -> None:
    """Ask the host; a host that knows the run already says so, and the same process is adopted."""
    spent = credentials.held_back(fleet, order.run)
    if spent:
        return report.parked(fleet, order.run, spent)
    answer = client.ask(order.host, "start", start_request.spec(fleet, order))
    if answer.get("state") in ("started", "known"):
        report.started(fleet, order.run)
        with fleet.engine.begin() as conn:
            host_polls.hurry(conn, order.host["host_id"], fleet.clock())
    log.info("start", run=order.run["name"], host=order.host["host_id"], answer=answer.get("state"))


def _start_later(fleet: Fleet, entry: Row, why: str, secs: float | None = None) -> None:
    """The confirm deadline says when it is too late; an outdated start is marked done without being carried out."""
    with fleet.engine.begin() as conn:
        outbox.postpone(conn, entry, fleet.clock(), fleet.mask.text(why), secs)


def _ask_again(fleet: Fleet, entry: Row, run: Row | None, why: Unreachable) -> None:
    """Said again, a start changes nothing. Where it may have arrived, now or before, the run waits for its host to come
    back; where it surely did not, the deadline of before we asked holds again."""
    if run is not None and (isinstance(why, Unable) or why.never_asked):
        report.did_not_start(fleet, run)
    _start_later(fleet, entry, str(why))


def _cannot_start(fleet: Fleet, entry: Row, no: Refused) -> None:
    why = str(no)
    with fleet.engine.begin() as conn:
        outbox.give_up(conn, entry["id"], fleet.clock(), fleet.mask.text(why))
        run = runs.get(conn, entry["task_pk"], entry["run"])
    if run is not None:
        report.failed(fleet, run, "cli_missing" if no.kind is Kind.UNKNOWN else "cannot_start", why, transient=False)


def _stop(fleet: Fleet, task_pk: int, newest: int) -> None:
    """End every run of a task that its host may still be working on, up to the one that the entry names."""
    with fleet.engine.begin() as conn:
        going = [
            run
            for run in runs.of_task(conn, task_pk)
            if run["host_id"] and run["number"] <= newest and not run["result"]
        ]
        hosts = {run["host_id"]: host_rows.host(conn, run["host_id"]) for run in going}
    away: list[Unavailable] = []
    for run in going:
        host = hosts[run["host_id"]]
        try:
            if host is not None:
                _cancel(fleet, host, run)
        except Unavailable as later:  # the others are told all the same
            away.append(later)
    if away:
        raise away[0]


def _cancel(fleet: Fleet, host: Row, run: Row) -> None:
    request = start_request.about(fleet, host, run["name"]) | {"grace_secs": GRACE_SECS}
    try:
        answer = client.ask(host, "cancel", request)
    except Unreachable as why:
        raise Unavailable(str(why)) from why
    log.info("cancel", run=run["name"], host=host["host_id"], answer=answer.get("state"))


def finish(fleet: Fleet, run: Row, result: Mapping[str, Any]) -> bool:
    """The run is over and its log is here whole: read it, and tell. One that was lost is looked for on the forge
    first. Raises Unavailable while that cannot be asked."""
    if result.get("end") == "lost":
        result = recover.saved(fleet, run, result) or result
    outcome = output.outcome(fleet, run, result)
    ended = report.ended(fleet, run, {name: told for name, told in result.items() if name != "noted"}, outcome)
    if ended and result.get("survivors"):
        _drain(fleet, run, result["survivors"])
    return ended


def _drain(fleet: Fleet, run: Row, survivors: list[dict[str, Any]]) -> None:
    """Processes that no signal ends may still write where a next run works: the host gets no more work."""
    named = ", ".join(f"{one['pid']} ({one['command']})" for one in survivors[:5])
    why = f"{run['name']} left processes that could not be ended: {named}. End them there, then resume the host."
    host_health.set_fitness(fleet, run["host_id"], Fitness.DRAINING, fleet.mask.text(why))
    log.error("a host is drained", host=run["host_id"], why=why)

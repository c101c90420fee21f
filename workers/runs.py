"""Starts, polls, finishes and cancels runs on hosts. Each step may be repeated: the host remembers what it was told."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from app.domain.errors import Refused, Unavailable
from app.domain.lifecycle import Debt
from app.ports import Fleet
from app.services import quota, report, settle, start
from app.store import debts, places, runs
from app.store.tables import Row
from workers import command, hearing, reach
from workers.reach import Unreachable

PIECE = 1 << 20  # bytes of output that one look at a host may bring
LOOKS = 40  # pieces one round fetches from a host before it lets others have a turn
GRACE_SECS = 10
log = structlog.get_logger()


def pay(fleet: Fleet) -> int:
    """Pay the debts to hosts that are due, starts and stops; returns how many were tried."""
    with fleet.engine.begin() as conn:
        owed = debts.take(conn, (Debt.START, Debt.STOP), fleet.clock(), most=5)
    for debt in owed:
        if debt["kind"] == Debt.START:
            _start(fleet, debt)
        else:
            settle.pay(fleet, debt, lambda fleet, task, debt: _stop(fleet, task.id, debt["run"]))
    return len(owed)


def look(fleet: Fleet) -> int:
    """Poll every host that has runs of ours, one call a host; returns how many runs ended."""
    with fleet.engine.begin() as conn:
        open_runs = runs.open_on_hosts(conn)
        hosts = {id_: places.host(conn, id_) for id_ in {run["host_id"] for run in open_runs}}
    return sum(
        _guarded(_look_at, fleet, host, [run for run in open_runs if run["host_id"] == host_id])
        for host_id, host in hosts.items()
        if host is not None
    )


def _guarded(step: Callable[..., int], *given: Any) -> int:
    """What breaks with one run or host is logged, and holds up no other."""
    try:
        return step(*given)
    except Exception:
        log.exception("a look broke", step=step.__name__)
        return 0


def _start(fleet: Fleet, debt: Row) -> None:
    try:
        order = start.order(fleet, debt)
        if order is not None:
            _carry_out(fleet, order)
    except Unavailable as later:
        return _start_later(fleet, debt, str(later))
    except (Refused, Unreachable) as no:
        return (
            _start_later(fleet, debt, str(no)) if isinstance(no, Unreachable) else _cannot_start(fleet, debt, str(no))
        )
    with fleet.engine.begin() as conn:
        debts.paid(conn, debt["id"], fleet.clock())


def _carry_out(fleet: Fleet, order: start.Order) -> None:
    """Ask the host; a host that knows the run already says so, and the same process is adopted."""
    spent = quota.held_back(fleet, order.run)
    if spent:
        return report.parked(fleet, order.run, spent)
    answer = reach.ask(order.host, "start", command.spec(fleet, order))
    if answer.get("state") in ("started", "known"):
        report.started(fleet, order.run)
    log.info("start", run=order.run["name"], host=order.host["host_id"], answer=answer.get("state"))


def _start_later(fleet: Fleet, debt: Row, why: str) -> None:
    """The confirm deadline says when it is too late; an outdated start is paid without being carried out."""
    with fleet.engine.begin() as conn:
        debts.postpone(conn, debt, fleet.clock(), fleet.mask.text(why))


def _cannot_start(fleet: Fleet, debt: Row, why: str) -> None:
    with fleet.engine.begin() as conn:
        debts.give_up(conn, debt["id"], fleet.clock(), fleet.mask.text(why))
        run = runs.get(conn, debt["task_pk"], debt["run"])
    if run is not None:
        report.failed(fleet, run, "cli_missing", why, transient=False)


def _stop(fleet: Fleet, task_pk: int, newest: int) -> None:
    """End every run of a task that its host may still be working on, up to the one that the debt names."""
    with fleet.engine.begin() as conn:
        going = [
            run
            for run in runs.of_task(conn, task_pk)
            if run["host_id"] and run["number"] <= newest and not run["result"]
        ]
        hosts = {run["host_id"]: places.host(conn, run["host_id"]) for run in going}
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
    request = command.about(fleet, host, run["name"]) | {"grace_secs": GRACE_SECS}
    try:
        answer = reach.ask(host, "cancel", request)
    except Unreachable as why:
        raise Unavailable(str(why)) from why
    log.info("cancel", run=run["name"], host=host["host_id"], answer=answer.get("state"))


def _look_at(fleet: Fleet, host: Row, ours: list[Row]) -> int:
    """One host: fetch what is new of its runs until there is no more, or others should have a turn."""
    offsets = {run["name"]: [run["stdout_size"], run["stderr_size"]] for run in ours}
    ended = 0
    for _ in range(LOOKS):
        try:
            answer = reach.ask(host, "poll", _asked(fleet, host, ours, offsets))
        except Unreachable as why:
            log.warning("a host could not be looked at", host=host["host_id"], why=str(why))
            return ended
        more = [run for run in ours if _hear(fleet, run, answer["runs"][run["name"]], offsets[run["name"]])]
        over = [run for run in ours if run not in more and answer["runs"][run["name"]].get("result")]
        ended += sum(_guarded(_finish, fleet, run, answer["runs"][run["name"]]["result"]) for run in over)
        ours = more
        if not ours:
            break
    return ended


def _asked(fleet: Fleet, host: Row, ours: list[Row], offsets: Mapping[str, list[int]]) -> dict[str, Any]:
    asked = [{"run": run["name"], "stdout": offsets[run["name"]][0], "stderr": offsets[run["name"]][1]} for run in ours]
    return command.about(fleet, host) | {"runs": asked, "limit": PIECE}


def _hear(fleet: Fleet, run: Row, seen: dict[str, Any], offsets: list[int]) -> bool:
    """Take in what a host says of one run; True while its log has more to fetch. A run the host never heard of is
    not beaten: its start is owed, or its lease runs out."""
    if not seen.get("known"):
        return False
    if run["started_at"] is None:
        report.started(fleet, run)
    else:
        report.beat(fleet, run)
    behind = False
    for at, stream in enumerate(("stdout", "stderr")):
        piece = seen[stream]
        data = base64.b64decode(piece["data"])
        if data:
            offsets[at] = report.log(fleet, run, stream, piece["offset"], data)
        behind |= offsets[at] < piece["size"] and bool(data)
    hearing.attend(fleet, run, ended=seen.get("result") is not None)
    return behind


def _finish(fleet: Fleet, run: Row, result: dict[str, Any]) -> bool:
    """The run is over and its log is here whole: read it, and tell."""
    return report.ended(fleet, run, result, hearing.outcome(fleet, run, result))

"""Records what hosts and agents report about a run: its start, its progress and its end.

Reports of older runs change no task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind, OutboxKind
from app.domain.quota import Spent
from app.domain.run import Outcome, Run, Usage, Verdict, judge
from app.domain.task import Task
from app.ports import Fleet
from app.services.dispatch import budgets, credentials
from app.store import host_polls, hosts, logs, outbox, repositories, runs, tasks
from app.store.host_polls import Answered
from app.store.logs import Piece

SEEN = timedelta(seconds=5)  # precision of `seen_at`


def started(fleet: Fleet, run: Run) -> None:
    """The run's process exists: its lease begins. A report of an older run changes only that run's row."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        runs.mark_started(conn, run.id, at, at + _lease(fleet, run))
        if run.host_id:  # the worker that sent the start may have died before the answer
            outbox.done_for_run(conn, run.task_pk, run.number, OutboxKind.START, at)
    _record_now(fleet, run, Fact(FactKind.STARTED, run=run.number))


def renew_lease(fleet: Fleet, run: Run) -> None:
    """The run is alive: renew its lease."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        runs.renew_lease(conn, run.id, at, at + _lease(fleet, run))


def record_poll(fleet: Fleet, holder: str, seen: Sequence[Answered], slowest: float) -> None:
    """Save that hosts held by `holder` answered a poll: when the next one is due, and which runs are alive.

    `slowest` is the longest time between two polls, in seconds. Runs seen a small part of their lease ago are not
    written again.
    """
    at, lease = fleet.clock(), timedelta(seconds=fleet.config.host_grace_secs)
    alive = [run_id for one in seen for run_id in one.alive]
    with fleet.engine.begin() as conn:
        if alive:
            runs.renew_leases(conn, alive, at, at + lease, unless_since=at - min(lease / 20, SEEN))
        host_polls.answered(conn, holder, at, (fleet.config.look_secs, slowest), seen)


def may_start(fleet: Fleet, run: Run) -> bool:
    """Call before a start is sent: from then on the run may exist. False if the run has ended.

    Its lease begins, so that no other run is begun until the host has had time to come back.
    """
    with fleet.engine.begin() as conn:
        return runs.extend_lease(conn, run.id, run.assigned_at + _lease(fleet, run))


def restore_deadline(fleet: Fleet, run: Run) -> None:
    """The start surely did not arrive: the deadline that `run` had before counts again.

    That is the short one for confirming, unless an earlier request may have arrived.
    """
    confirm = run.assigned_at + timedelta(seconds=fleet.config.confirm_secs)
    with fleet.engine.begin() as conn:
        runs.restore_lease(conn, run.id, run.deadline or confirm)


def log(
    fleet: Fleet, run: Run, stream: str, offset: int, data: bytes, more: bool = False, from_host: bool = False
) -> Piece:
    """Store bytes of the run's output from `offset`, secrets masked; returns those that are new.

    If there is `more` to come, the possible beginning of a secret is not stored yet: it comes again with its rest.
    `from_host`: the host keeps the log until the run is released. A gap before `offset` was dropped on the host.
    """
    masked = fleet.mask.bytes(data)
    cut = fleet.mask.cut(data) if more else 0
    whole = masked[: len(masked) - cut] if cut else masked
    with fleet.engine.begin() as conn:
        return logs.append(conn, run.id, stream, offset, whole, fleet.config.log_limit_mb << 20, from_host)


def ended(fleet: Fleet, run: Run, result: Mapping[str, Any], outcome: Outcome, believed: Task | None = None) -> bool:
    """Record the end of a run and what it means for its task, once; False if it had ended before.

    A caller that has just read both passes the task as `believed`.
    """
    masked = fleet.mask.json(dict(result))
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        now, task = (run, believed) if believed else runs.with_task(conn, run.task_pk, run.number)
        outcome = _with_stop_reason(now, result, outcome)
        session = {"session": outcome.session_id} if outcome.session_id else {}
        masked |= _cli_version(conn, run)
        kept = fleet.mask.json(outcome.kept())
        if not runs.end(conn, run.id, at, str(result.get("end")), result=masked, outcome=kept, **session):
            return False
        if result.get("lfs") and run.host_id:
            repositories.mark_lfs(conn, task.forge, task.repository_id)
        fact = credentials.apply_outcome(conn, run, outcome, judge(run.number, masked, outcome), at)
        _record(conn, fleet, run, fact, task)
    fleet.nudge.soon()
    return True


def failed(fleet: Fleet, run: Run, reason: str, why: str, transient: bool) -> None:
    """The run could not be started."""
    detail = {"reason": reason, "why": fleet.mask.text(why)[:2000], "transient": transient}
    with fleet.engine.begin() as conn:
        runs.end(conn, run.id, fleet.clock(), reason)
        _record(conn, fleet, run, Fact(FactKind.FAILED, detail, run=run.number))
    fleet.nudge.soon()


def parked(fleet: Fleet, run: Run, spent: Spent) -> None:
    """The run is not started: its budget is used up, or its credential is closed."""
    detail = {"reason": spent.reason, "why": spent.why, "until": spent.until and spent.until.isoformat()}
    with fleet.engine.begin() as conn:
        runs.end(conn, run.id, fleet.clock(), spent.reason)
        _record(conn, fleet, run, Fact(FactKind.LIMIT_REACHED, detail, run=run.number))
    fleet.nudge.soon()


def record_progress(fleet: Fleet, run: Run, message: str | None, progress: object) -> None:
    """Record an agent's progress and renew the lease, or end the run if its budget is used up."""
    words = fleet.mask.text(message or "")[:2000] or None
    with fleet.engine.begin() as conn:
        runs.record_progress(conn, run.id, words, fleet.mask.json(_progress(run.progress, progress)), fleet.clock())
        has_budgets = budgets.any_declared(conn)
    spent = budgets.over_budget(fleet, run) if has_budgets else None
    if spent:
        return end_over_budget(fleet, run, spent)
    return (renew_lease if run.started_at else started)(fleet, run)


def _progress(before: object, now: object) -> object:
    """The new progress, with the usage of the one before if it reports none."""
    used = before.get("usage") if isinstance(before, dict) else None
    if used is None or (now is not None and not isinstance(now, dict)):
        return now
    return {"usage": used, **(now or {})}


def end_over_budget(fleet: Fleet, run: Run, spent: Spent) -> None:
    """End an agent's run whose budget is used up. The agent is asked to stop; the usage that it reported stays."""
    if run.started_at is None:
        return parked(fleet, run, spent)
    with fleet.engine.begin() as conn:
        now = runs.get(conn, run.task_pk, run.number) or run
    until, progress = spent.until.isoformat() if spent.until else None, now.progress
    used = Usage.told(progress.get("usage") if isinstance(progress, dict) else None)
    outcome = Outcome(Verdict.KILLED, usage=used, failure="budget", error=spent.why, resets_at=until)
    ended(fleet, run, {"end": "cancelled", "step": "agent", "reason": spent.why}, outcome)
    return None


def _cli_version(conn: Connection, run: Run) -> dict[str, Any]:
    """The version of the CLI that the last probe of its host found. An agent reports its own."""
    host = hosts.machine(conn, run.host_id) if run.host_id else None
    found = host.probe.clis.get(run.agent_type or "") if host and host.probe else None
    return {"cli_version": found} if found else {}


def _with_stop_reason(now: Run | None, result: Mapping[str, Any], outcome: Outcome) -> Outcome:
    """The outcome with our reason if we stopped the run. A run that finished first keeps its own."""
    why = now and now.stop_reason
    if not why or result.get("end") == "finished":
        return outcome
    resets = str(why["until"]) if why["until"] else None
    return replace(outcome, verdict=Verdict.KILLED, failure="budget", error=why["why"], resets_at=resets)


def _record_now(fleet: Fleet, run: Run, fact: Fact) -> None:
    with fleet.engine.begin() as conn:
        _record(conn, fleet, run, fact)


def _record(conn: Connection, fleet: Fleet, run: Run, fact: Fact, believed: Task | None = None) -> None:
    """Record a fact of a run. A task that moved on without the run (cancelled, merged, a newer run) stays as it is."""
    try:
        tasks.record(conn, run.task_pk, fact, fleet.clock(), believed)
    except Refused as refusal:
        if refusal.kind not in (Kind.STALE, Kind.INVALID):
            raise


def _lease(fleet: Fleet, run: Run) -> timedelta:
    """How long a run may be silent: FLEET_HOST_GRACE_SECS on hosts, FLEET_OFFLINE_AFTER_SECS for agents."""
    config = fleet.config
    return timedelta(seconds=config.host_grace_secs if run.host_id else config.offline_after_secs)

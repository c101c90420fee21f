"""Expires runs whose lease has passed its deadline, and wakes tasks whose pause is over; runs every FLEET_SCAN_SECS.

If two workers run it at once, the second finds nothing to do.
"""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from app.domain.errors import Refused, Unavailable
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Outcome, Run, Verdict
from app.ports import Fleet
from app.services.runs import recover, report
from app.store import host_polls, periodic_jobs, runs, tasks

AWAY = {"reason": "its host does not answer; what it was to deliver is on the forge"}
log = structlog.get_logger()
AWAY_AFTER = timedelta(seconds=30)
WEB, WEB_ALIVE_SECS = "web", 5.0  # recorded by web processes: without one, no agent can report
EXPIRY = "rescue"  # the name under which the database keeps when runs were last expired


def expire_and_wake(fleet: Fleet) -> int:
    """Expire runs and wake tasks; returns how many.

    If no scan ran for a while, the control plane was away: the leases of runs on hosts are extended by that time first.
    """
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        gap = periodic_jobs.record_run(conn, EXPIRY, at)
        if gap and gap > max(AWAY_AFTER, timedelta(seconds=3 * fleet.config.scan_secs)):
            runs.extend_leases(conn, gap, on_hosts=True)
    return _expire(fleet, at) + _wake(fleet, at)


def record_web_alive(fleet: Fleet) -> None:
    """Record that a web process is up. If none was for a while, the leases of agents are extended by that time."""
    with fleet.engine.begin() as conn:
        gap = periodic_jobs.record_run(conn, WEB, fleet.clock())
        if gap and gap > AWAY_AFTER / 2:
            runs.extend_leases(conn, gap, on_hosts=False)


def _is_web_down(conn: Connection, at: datetime) -> bool:
    """True if there were web processes and there are none now: then an agent's silence says nothing."""
    alive_at = periodic_jobs.last_run(conn, WEB)
    return alive_at is not None and at - alive_at > AWAY_AFTER / 2


def _expire(fleet: Fleet, at: datetime) -> int:
    with fleet.engine.begin() as conn:
        silent = runs.with_expired_lease(conn, at, on_hosts_only=_is_web_down(conn, at))
    return sum(_expire_run(fleet, run, at) for run in silent)


def _expire_run(fleet: Fleet, run: Run, at: datetime) -> bool:
    """End a run whose lease is over. One whose commits are on the forge has finished.

    False if the forge does not answer.
    """
    try:
        saved = recover.find_delivered(fleet, run, AWAY) if run.host_id else None
    except Unavailable as later:
        log.warning("a silent run is kept until the forge answers", run=run.name, why=str(later))
        return False
    if saved:
        return report.ended(fleet, run, saved, Outcome(Verdict.UNKNOWN))
    with fleet.engine.begin() as conn:
        if runs.expire(conn, run.id, at):
            why = {"why": _describe_silence(conn, run)}
            _record(conn, run.task_pk, Fact(FactKind.EXPIRED, why, run=run.number), at, newest=run.number)
    return True


def _describe_silence(conn: Connection, run: Run) -> str:
    """Why a run was silent, as far as we know."""
    poll = run.host_id and host_polls.of(conn, run.host_id)
    if poll and poll["failing_since"]:
        return f"{run.host_id} has not answered since {poll['failing_since']:%Y-%m-%d %H:%M:%S} UTC: {poll['why']}"
    return f"{run.host_id or run.agent_id} showed no sign of life of it"


def _wake(fleet: Fleet, at: datetime) -> int:
    with fleet.engine.begin() as conn:
        due = tasks.due(conn, at)
        for task in due:
            _record(conn, task.id, Fact(FactKind.DUE), at)
    return len(due)


def _record(conn: Connection, task_pk: int, fact: Fact, at: datetime, newest: int | None = None) -> None:
    """Record a fact. For an older run, or a task that moved meanwhile, it changes nothing."""
    try:
        if newest is None or tasks.load(conn, task_pk).run == newest:
            tasks.record(conn, task_pk, fact, at)
    except Refused:
        return

"""Hears what runners tell: started, alive, ended. One door for hosts and agents; old fences are not believed."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, What
from app.domain.quota import Spent
from app.domain.run import Outcome, Verdict, judge
from app.ports import Fleet
from app.services import quota
from app.store import runs, tasks
from app.store.tables import Row


def started(fleet: Fleet, run: Row) -> None:
    """The run's process exists: its lease begins. Told of an older run, only that run's row is touched."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        runs.started(conn, run["id"], at, at + _lease(fleet))
    _tell(fleet, run, Fact(What.STARTED, run=run["number"]))


def beat(fleet: Fleet, run: Row) -> None:
    """The run was seen alive."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        runs.beat(conn, run["id"], at, at + _lease(fleet))


def log(fleet: Fleet, run: Row, stream: str, offset: int, data: bytes) -> int:
    """Bytes of the run's output from `offset`, secrets masked; returns the size that is stored now."""
    with fleet.engine.begin() as conn:
        return runs.append_log(conn, run["id"], stream, offset, fleet.mask.bytes(data))


def ended(fleet: Fleet, run: Row, result: Mapping[str, Any], outcome: Outcome) -> bool:
    """The run is over. Written down with what it means for the task, once; False when that was done before."""
    masked = fleet.mask.json(dict(result))
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        outcome = _stopped(conn, run, result, outcome)
        session = {"session": outcome.session_id} if outcome.session_id else {}
        kept = fleet.mask.json(outcome.kept())
        if not runs.ended(conn, run["id"], at, str(result.get("end")), result=masked, outcome=kept, **session):
            return False
        fact = quota.met(conn, run, outcome, judge(run["number"], masked, outcome), at)
        _record(conn, fleet, run, fact)
    fleet.nudge.soon()
    return True


def failed(fleet: Fleet, run: Row, reason: str, why: str, transient: bool) -> None:
    """The run could not even be started."""
    detail = {"reason": reason, "why": fleet.mask.text(why)[:2000], "transient": transient}
    with fleet.engine.begin() as conn:
        runs.ended(conn, run["id"], fleet.clock(), reason)
        _record(conn, fleet, run, Fact(What.FAILED, detail, run=run["number"]))
    fleet.nudge.soon()


def parked(fleet: Fleet, run: Row, spent: Spent) -> None:
    """The run is not started at all: its budget is used up, or its credential is closed."""
    detail = {"reason": spent.reason, "why": spent.why, "until": spent.until and spent.until.isoformat()}
    with fleet.engine.begin() as conn:
        runs.ended(conn, run["id"], fleet.clock(), spent.reason)
        _record(conn, fleet, run, Fact(What.LIMIT_REACHED, detail, run=run["number"]))
    fleet.nudge.soon()


def _stopped(conn: Any, run: Row, result: Mapping[str, Any], outcome: Outcome) -> Outcome:
    """A run that we ended for its budget ends with that; one that was done first is done."""
    now = runs.get(conn, run["task_pk"], run["number"])
    why = now and now["stop_for"]
    if not why or result.get("end") == "finished":
        return outcome
    resets = str(why["until"]) if why["until"] else None
    return replace(outcome, verdict=Verdict.KILLED, failure="budget", error=why["why"], resets_at=resets)


def _tell(fleet: Fleet, run: Row, fact: Fact) -> None:
    with fleet.engine.begin() as conn:
        _record(conn, fleet, run, fact)


def _record(conn: Any, fleet: Fleet, run: Row, fact: Fact) -> None:
    """A task that has gone on without this run (cancelled, merged, a newer run) is left as it is."""
    try:
        tasks.record(conn, run["task_pk"], fact, fleet.clock())
    except Refused as refusal:
        if refusal.kind not in (Kind.STALE, Kind.INVALID):
            raise


def _lease(fleet: Fleet) -> timedelta:
    return timedelta(seconds=fleet.config.offline_after_secs)

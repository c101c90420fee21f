"""Applies a poll's answer: stores logs, reads output, keeps leases alive, finishes runs that have ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.domain.run import Run
from app.ports import Fleet
from app.services.runs import report
from app.store import runs
from app.store.logs import Piece
from workers.protocol import PollAnswer, RunStatus
from workers.runs import output
from workers.runs.cli_call import HEARTBEAT_SECS
from workers.runs.finish import finish
from workers.worker import Worker

HEARTBEAT_LIMIT_SECS = 12 * HEARTBEAT_SECS  # a supervisor without a heartbeat for so long does not count as alive
UNKNOWN_RUN = {"end": "unknown", "reason": "its host knows nothing of it"}
Offsets = dict[str, dict[str, int]]  # where the log goes on, by run name and stream
log = structlog.get_logger()


@dataclass
class News:
    """What the polls of one host brought."""

    ended: int = 0  # runs
    is_any: bool = False
    disk_free: int | None = None  # bytes
    alive: list[int] = field(default_factory=list)  # ids of runs


def apply(
    worker: Worker, budgeted: bool, open_runs: list[Run], answer: PollAnswer, offsets: Offsets, news: News
) -> None:
    """Apply what a host says of `open_runs`; moves `offsets` to the end of what is stored, and adds to `news`."""
    news.disk_free = answer.disk_free
    for run in [run for run in open_runs if run.ended_at]:
        _apply_expired(worker.fleet, run, answer.runs[run.name], offsets[run.name], news)
    for run in [run for run in open_runs if not run.ended_at]:
        status = answer.runs[run.name]
        if status.is_known:
            _apply_open(worker, run, status, offsets[run.name], news, budgeted)


def _apply_open(
    worker: Worker, run: Run, status: RunStatus, offsets: dict[str, int], news: News, budgeted: bool
) -> None:
    if run.started_at is None:
        report.started(worker.fleet, run)
    elif _is_alive(status):
        news.alive.append(run.id)
    new = _store_logs(worker.fleet, run, status, offsets, news)
    may_cancel = budgeted and not status.result
    output.follow(worker, run, bool(new), new.get("stdout"), may_cancel, status.session_notes)
    if status.has_more:
        return
    if status.result:
        news.ended += _try_finish(worker, run, status.result)
        news.is_any = True
    elif status.step != "agent":  # the next step follows soon
        news.is_any = True


def _apply_expired(fleet: Fleet, run: Run, status: RunStatus, offsets: dict[str, int], news: News) -> None:
    """Store the rest of the log of a run that expired, and how it ended after all. The task is not changed."""
    if status.is_known:
        _store_logs(fleet, run, status, offsets, news)
    result: Mapping[str, object] | None = status.result if status.is_known else UNKNOWN_RUN
    if result and not status.has_more:
        with fleet.engine.begin() as conn:
            runs.record_late_result(conn, run.id, fleet.mask.json(dict(result)))
        log.info("the end of an expired run arrived", run=run.name, end=result.get("end"))


def _is_alive(status: RunStatus) -> bool:
    """False lets the lease run out."""
    return bool(status.result) or status.heartbeat_age < HEARTBEAT_LIMIT_SECS


def _store_logs(fleet: Fleet, run: Run, status: RunStatus, offsets: dict[str, int], news: News) -> dict[str, Piece]:
    """Store the new bytes of each log; returns them by stream."""
    new: dict[str, Piece] = {}
    for stream, piece in status.logs.items():
        if piece.data or piece.offset > offsets[stream]:
            more = not status.is_final(stream)
            new[stream] = report.log(fleet, run, stream, piece.offset, piece.data, more=more, from_host=True)
            offsets[stream], news.is_any = new[stream].end, True
    return new


def _try_finish(worker: Worker, run: Run, result: Mapping[str, Any]) -> int:
    """1 if the run has ended now. If its end cannot be recorded (say, the forge does not answer), poll it again."""
    try:
        return int(finish(worker, run, result))
    except Exception as why:
        log.warning("the end of a run could not be recorded", run=run.name, why=str(why), exc_info=True)
        return 0

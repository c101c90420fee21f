"""Polls hosts for all their runs: one request per host, hosts shared out among bounded threads and all workers.

Every FLEET_LOOK_SECS polls the hosts that are due; a quiet host is polled more rarely. Two workers at once: one of them
holds each host. When a host does not answer: only its own thread waits, until the deadline of the request. The host
is then polled ever more rarely; its runs keep their leases for FLEET_HOST_GRACE_SECS, then they expire
(app/services/runs/expiry.py). When it is back, the rest of their logs is still collected.
"""

import time
from collections.abc import Generator
from concurrent.futures import wait
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

import structlog

from app.domain.host import Machine
from app.domain.run import Run
from app.services.dispatch import budgets
from app.services.runs import report
from app.store import host_polls, hosts, runs
from app.store.host_polls import Answered
from workers.errors import Unreachable
from workers.protocol import STREAMS, PollAnswer, RunStatus
from workers.runs.apply_poll import News, Offsets, apply
from workers.runs.prefetch import prefetch
from workers.worker import Worker

SLOWEST_SECS = 5.0  # between two polls of a host whose runs print nothing
BUDGETED_SECS = 2.0  # the same if there are budgets: a run that crosses one ends within 5 s
FAILING_SECS = 15.0  # between two polls of a host that does not answer, at most
log = structlog.get_logger()


@dataclass(frozen=True)
class Visit:
    """A host to poll, with its open runs and those that expired unheard."""

    host_id: str
    machine: Machine | None  # None: it was removed
    runs: list[Run]
    failing: bool  # it did not answer the last poll
    budgeted: bool  # some run may have a budget


def poll_due(worker: Worker) -> int:
    """Poll each host that is due, as far as threads are free; returns how many runs ended while we waited."""
    threads = worker.poll_threads
    sent = [threads.submit(visit.host_id, visit.failing, _poll_host, worker, visit) for visit in _take_due(worker)]
    done, _ = wait(sent, timeout=worker.limits.poll_wait_secs)
    return sum(poll.result() for poll in done)


def _take_due(worker: Worker) -> list[Visit]:
    """Hold the hosts that we poll now, and keep holding those that our threads are still at."""
    fleet, threads = worker.fleet, worker.poll_threads
    at = fleet.clock()
    taken: dict[str, bool] = {}
    with fleet.engine.begin() as conn:
        host_polls.begin(conn, at)
        for failing in (False, True):
            free = threads.free(failing) - len(taken)
            if free > 0:
                taken |= dict.fromkeys(host_polls.take(conn, threads.holder, at, free, failing), failing)
        if threads.polls:
            host_polls.renew(conn, threads.holder, threads.polls, at)
        if not taken:
            return []
        machines, open_runs = hosts.machines(conn, taken), runs.to_poll(conn, list(taken), at)
        budgeted = budgets.any_declared(conn)
    return [Visit(name, machines.get(name), open_runs[name], failing, budgeted) for name, failing in taken.items()]


def _poll_host(worker: Worker, visit: Visit) -> int:
    """Poll one host and store what is new; returns how many runs ended. Errors are logged."""
    try:
        news = _fetch(worker, visit)
    except Exception as why:
        _record_failure(worker, visit.host_id, why)
        return 0
    try:
        answered = Answered(visit.host_id, news.is_any, news.disk_free, news.alive)
        slowest = BUDGETED_SECS if visit.budgeted else SLOWEST_SECS
        _record_answer(worker, answered, slowest)
    except Exception:  # our hold on the host ends in a moment
        log.exception("the answer of a host could not be stored", host=visit.host_id)
    return news.ended


def _record_failure(worker: Worker, host_id: str, why: Exception) -> None:
    fleet = worker.fleet
    if not isinstance(why, Unreachable):
        log.exception("a poll failed", host=host_id)
    log.warning("a host did not answer a poll", host=host_id, why=str(why))
    with fleet.engine.begin() as conn:
        every = (fleet.config.look_secs, FAILING_SECS)
        host_polls.failed(conn, worker.poll_threads.holder, host_id, fleet.clock(), every, fleet.mask.text(str(why)))


def _record_answer(worker: Worker, answered: Answered, slowest: float) -> None:
    """One transaction for all threads that have an answer now."""
    holder, is_busy = worker.poll_threads.holder, worker.poll_threads.is_busy
    worker.answered.write(answered, lambda batch: report.record_poll(worker.fleet, holder, batch, slowest), is_busy)


def _fetch(worker: Worker, visit: Visit) -> News:
    """Poll until all is fetched, or until other hosts get the thread. Applies one answer while the next is fetched."""
    news, offsets = News(), {run.name: {name: run.log_size(name) for name in STREAMS} for run in visit.runs}
    if visit.machine is None or not visit.runs:
        return news
    polls = _polls(worker, visit.machine, visit.runs, offsets)
    first = next(polls)
    with prefetch(worker.poll_threads.prefetch, polls) if first.after else nullcontext(()) as more:
        polled = chain((first,), more)
        del first  # megabytes, and applying the others may take seconds
        for poll in polled:
            apply(worker, visit.budgeted, poll.runs, poll.answer, offsets, news)
            if any(offsets[name] != expected for name, expected in poll.after.items()):
                break  # another worker stored some of it: the next answer does not follow
    return news


@dataclass(frozen=True)
class Poll:
    """An answer about `runs`, and the offsets at which the next answer continues."""

    runs: list[Run]
    answer: PollAnswer
    after: Offsets


def _polls(worker: Worker, machine: Machine, open_runs: list[Run], offsets: Offsets) -> Generator[Poll]:
    """Answers, each from where the one before ends, as long as logs have more and it is our turn."""
    until = time.monotonic() + worker.limits.poll_turn_secs
    while open_runs and time.monotonic() < until:
        asked = [{"run": run.name, **offsets[run.name]} for run in open_runs]
        body = {"runs": asked, "limit": worker.limits.poll_bytes}
        answer = PollAnswer.from_json(worker.hosts.request(machine, "poll", body))
        behind = [run for run in open_runs if answer.runs[run.name].has_more]
        offsets = {run.name: _ends(worker, answer.runs[run.name]) for run in behind}
        yield Poll(open_runs, answer, offsets)
        open_runs = behind


def _ends(worker: Worker, status: RunStatus) -> dict[str, int]:
    """Where each log will end once the pieces are stored: what may begin a secret is not stored yet."""
    cut = {
        name: 0 if status.is_final(name) else worker.fleet.mask.cut(piece.data) for name, piece in status.logs.items()
    }
    return {name: piece.end - cut[name] for name, piece in status.logs.items()}

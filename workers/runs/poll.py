"""Looks at hosts: one poll a host for all its runs, hosts shared out among a bounded crew of threads and all workers.

A host that does not answer keeps its own thread busy until its deadline, and nobody else; two never look at the same.
"""

import time
from collections.abc import Generator, Mapping
from concurrent.futures import wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

import structlog

from app.ports import Fleet
from app.services.dispatch import budgets
from app.services.runs import report
from app.store import host_polls, runs
from app.store import hosts as host_rows
from app.store.host_polls import Answered
from app.store.logs import Piece
from app.store.tables import Row
from workers.hosts import client
from workers.hosts.client import Unreachable
from workers.runs import output, start_request
from workers.runs.prefetch import ahead
from workers.runs.start_stop import finish
from workers.runs.threads import Crew

PIECE = 4 << 20  # bytes of output that one poll of a host may bring
TURN_SECS = 5.0  # how long one turn goes on fetching from a host before it lets others have the thread
WAIT_SECS = 2.0  # how long a round waits for its hosts; those that take longer are left to their threads
SLOWEST_SECS = 5.0  # between two looks at a host whose runs print nothing
BUDGETED_SECS = 2.0  # the same where there are budgets: one that is crossed ends its run within 5 s
RARELY_SECS = 15.0  # between two looks at a host that does not answer
HEART_SECS = (
    12 * start_request.HEARTBEAT_SECS
)  # a supervisor whose heart stands still for so long is not taken for alive
STREAMS = ("stdout", "stderr")
log = structlog.get_logger()


@dataclass(frozen=True)
class Visit:
    """A host to look at, with its runs that have not ended as far as we know. `failing`: it did not answer last time;
    `budgeted`: some run may have a budget."""

    host_id: str
    host: Row | None
    runs: list[Row]
    failing: bool
    budgeted: bool


@cache
def _crew(size: int) -> Crew:
    return Crew(size)


def look(fleet: Fleet, crew: Crew | None = None) -> int:
    """One round: a look at each host that is due, as far as threads are free; returns how many runs were seen to end
    while we waited."""
    crew = crew or _crew(fleet.config.look_threads)
    sent = [crew.send(visit.host_id, visit.failing, _look_at, fleet, visit, crew) for visit in _taken(fleet, crew)]
    done, _ = wait(sent, timeout=WAIT_SECS)
    return sum(look.result() for look in done)


def _taken(fleet: Fleet, crew: Crew) -> list[Visit]:
    """The hosts that are ours to look at now; those that our threads are still at are kept from others."""
    at = fleet.clock()
    taken: dict[str, bool] = {}
    with fleet.engine.begin() as conn:
        host_polls.begin(conn, at)
        for failing in (False, True):
            room = crew.free(failing) - len(taken)
            if room > 0:
                taken |= dict.fromkeys(host_polls.take(conn, crew.name, at, room, failing), failing)
        if crew.at_work:
            host_polls.renew(conn, crew.name, crew.at_work, at)
        if not taken:
            return []
        hosts, ours = host_rows.hosts_named(conn, taken), runs.to_hear_on_hosts(conn, list(taken), at)
        budgeted = budgets.there_are(conn)
    return [Visit(name, hosts.get(name), ours[name], failing, budgeted) for name, failing in taken.items()]


def _look_at(fleet: Fleet, visit: Visit, crew: Crew) -> int:
    """One host: what is new of its runs; returns how many ended. What breaks is logged, and holds up no other."""
    config, host_id = fleet.config, visit.host_id
    try:
        seen = _fetch(fleet, visit, crew)
    except Exception as why:
        if not isinstance(why, Unreachable):
            log.exception("a look broke", host=host_id)
        log.warning("a host could not be looked at", host=host_id, why=str(why))
        with fleet.engine.begin() as conn:
            every = (config.look_secs, RARELY_SECS)
            host_polls.failed(conn, crew.name, host_id, fleet.clock(), every, fleet.mask.text(str(why)))
        return 0
    try:
        answered = Answered(host_id, seen.news, seen.disk_free, seen.alive)
        crew.note(fleet, answered, BUDGETED_SECS if visit.budgeted else SLOWEST_SECS)
    except Exception:  # the host is free again in a moment
        log.exception("what a host answered could not be written down", host=host_id)
    return seen.ended


@dataclass
class Seen:
    """What a look has brought: how many runs ended, which are alive, whether anything was new."""

    ended: int = 0
    news: bool = False
    disk_free: int | None = None
    alive: list[int] = field(default_factory=list)


Offsets = dict[str, dict[str, int]]  # of each run and stream, where its log goes on


def _fetch(fleet: Fleet, visit: Visit, crew: Crew) -> Seen:
    """Poll until there is no more, or others should have a turn. Where there is more, the next answers are on their way
    while this one is taken in."""
    seen, offsets = Seen(), {run["name"]: {stream: run[f"{stream}_size"] for stream in STREAMS} for run in visit.runs}
    if visit.host is None or not visit.runs:
        return seen
    polls = _polls(fleet, visit.host, visit.runs, offsets)
    first = next(polls)
    with ahead(crew.ahead, polls) if first.after else nullcontext(()) as more:
        polled = chain((first,), more)
        del first  # megabytes, which the rest may take seconds to follow
        for poll in polled:
            if not _taken_in(fleet, visit, poll, offsets, seen):
                break
    return seen


@dataclass(frozen=True)
class Poll:
    """What a host said of `runs`, and where the logs of those go on that have more to say."""

    runs: list[Row]
    answer: dict[str, Any]
    after: Offsets


def _polls(fleet: Fleet, host: Row, runs: list[Row], offsets: Offsets) -> Generator[Poll]:
    """Each asked for where the one before it ends, as long as there is more and it is our turn."""
    until = time.monotonic() + TURN_SECS
    while runs and time.monotonic() < until:
        answer = client.ask(host, "poll", _asked(fleet, host, runs, offsets))
        told = answer["runs"]
        behind = [run for run in runs if _is_behind(told[run["name"]])]
        offsets = {
            run["name"]: {stream: _end(fleet, told[run["name"]], stream) for stream in STREAMS} for run in behind
        }
        yield Poll(runs, answer, offsets)
        runs = behind


def _taken_in(fleet: Fleet, visit: Visit, poll: Poll, offsets: Offsets, seen: Seen) -> bool:
    """False where somebody else took some of it in meanwhile: what is asked for after it is not what comes next."""
    seen.disk_free = poll.answer.get("disk_free")
    _take_in(fleet, visit, poll.runs, poll.answer["runs"], offsets, seen)
    return all(offsets[name] == expected for name, expected in poll.after.items())


def _is_behind(told: Mapping[str, Any]) -> bool:
    """Whether there is more of a run's logs than was told."""
    return bool(told.get("known")) and (_goes_on(told["stdout"]) or _goes_on(told["stderr"]))


def _goes_on(piece: Mapping[str, Any]) -> bool:
    return bool(piece["data"]) and piece["offset"] + len(piece["data"]) < piece["size"]


def _end(fleet: Fleet, told: Mapping[str, Any], stream: str) -> int:
    piece = told[stream]
    end: int = piece["offset"] + len(piece["data"])
    return end if _is_last(told, stream) else end - fleet.mask.cut(piece["data"])


def _is_last(told: Mapping[str, Any], stream: str) -> bool:
    """Whether this is all that the log will ever have."""
    piece = told[stream]
    return bool(told.get("result")) and piece["offset"] + len(piece["data"]) >= piece["size"]


def _asked(fleet: Fleet, host: Row, ours: list[Row], offsets: Offsets) -> dict[str, Any]:
    asked = [{"run": run["name"], **offsets[run["name"]]} for run in ours]
    return start_request.about(fleet, host) | {"runs": asked, "limit": PIECE}


def _take_in(
    fleet: Fleet, visit: Visit, ours: list[Row], told: Mapping[str, Any], offsets: Offsets, seen: Seen
) -> None:
    """What a host says of our runs."""
    for run in [run for run in ours if run["ended_at"]]:
        _hear_late(fleet, run, told[run["name"]], offsets[run["name"]], seen)
    ours = [run for run in ours if not run["ended_at"]]
    for run in [run for run in ours if told[run["name"]].get("known")]:
        one = told[run["name"]]
        if run["started_at"] is None:
            report.started(fleet, run)
        elif _lives(one):
            seen.alive.append(run["id"])
        _hear(fleet, run, one, offsets[run["name"]], seen, visit.budgeted)
        if _is_behind(one):
            continue
        if one.get("result"):
            seen.ended += _guarded_finish(fleet, run, one["result"])
            seen.news = True
        elif one.get("step") != "agent":  # it will go on soon
            seen.news = True


def _hear_late(fleet: Fleet, run: Row, told: Mapping[str, Any], offsets: dict[str, int], seen: Seen) -> None:
    """The rest of the log of a run that was given up, and how it ended after all: for people to read, it moves
    nothing any more."""
    if told.get("known"):
        _take_log(fleet, run, told, offsets, seen)
    result = told.get("result") if told.get("known") else {"end": "unknown", "reason": "its host knows nothing of it"}
    if result and not _is_behind(told):
        with fleet.engine.begin() as conn:
            runs.heard_late(conn, run["id"], fleet.mask.json(dict(result)))
        log.info("a run that was given up was heard of", run=run["name"], end=result.get("end"))


def _lives(told: Mapping[str, Any]) -> bool:
    """A run whose supervisor's heart stands still is not seen alive: its lease runs out."""
    return bool(told.get("result")) or (told.get("beat_age") or 0) < HEART_SECS


def _hear(fleet: Fleet, run: Row, told: Mapping[str, Any], offsets: dict[str, int], seen: Seen, budgeted: bool) -> None:
    """Take in the new bytes of a run's logs, and listen to them."""
    new = _take_log(fleet, run, told, offsets, seen)
    may_end = budgeted and not told.get("result")
    output.attend(fleet, run, bool(new), new.get("stdout"), may_end, told.get("noted"))


def _take_log(fleet: Fleet, run: Row, told: Mapping[str, Any], offsets: dict[str, int], seen: Seen) -> dict[str, Piece]:
    """What is new of each stream, stored."""
    new: dict[str, Piece] = {}
    for stream in STREAMS:
        piece = told[stream]
        if piece["data"] or piece["offset"] > offsets[stream]:
            more = not _is_last(told, stream)
            new[stream] = report.log(fleet, run, stream, piece["offset"], piece["data"], more=more, from_host=True)
            offsets[stream], seen.news = new[stream].end, True
    return new


def _guarded_finish(fleet: Fleet, run: Row, result: Mapping[str, Any]) -> int:
    """One run whose end cannot be told now (the forge must be asked and does not answer) waits for the next look."""
    try:
        return int(finish(fleet, run, result))
    except Exception as why:
        log.warning("the end of a run could not be told", run=run["name"], why=str(why), exc_info=True)
        return 0

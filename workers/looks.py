"""Looks at hosts: one poll a host for all its runs, hosts shared out among a bounded crew of threads and all workers.

A host that does not answer keeps its own thread busy until its deadline, and nobody else; two never look at the same.
"""

import base64
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import structlog

from app.ports import Fleet
from app.services import report
from app.store import looks, places, runs
from app.store.tables import Row
from workers import command, hearing, reach
from workers.reach import Unreachable
from workers.runs import finish

PIECE = 4 << 20  # bytes of output that one poll of a host may bring
TURN_SECS = 5.0  # how long one turn goes on fetching from a host before it lets others have the thread
WAIT_SECS = 2.0  # how long a round waits for its hosts; those that take longer are left to their threads
SLOWEST_SECS = 5.0  # between two looks at a host whose runs print nothing
RARELY_SECS = 15.0  # between two looks at a host that does not answer
HEART_SECS = 12 * command.HEARTBEAT_SECS  # a supervisor whose heart stands still for so long is not taken for alive
log = structlog.get_logger()


@dataclass
class Crew:
    """The threads of this process that look at hosts, and where they are. `name` holds the hosts in the database."""

    size: int
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    at_work: dict[str, "Future[int]"] = field(default_factory=dict)
    in_vain: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="look")

    def free(self, failing: bool) -> int:
        """How many more hosts may be looked at; of those that do not answer only as many as a quarter of us bear."""
        self.at_work = {host_id: look for host_id, look in self.at_work.items() if not look.done()}
        idle = self.size - len(self.at_work)
        return min(idle, max(1, self.size // 4) - len(self.in_vain & self.at_work.keys())) if failing else idle

    def send(self, fleet: Fleet, host_id: str, failing: bool) -> "Future[int]":
        (self.in_vain.add if failing else self.in_vain.discard)(host_id)
        look = self.at_work[host_id] = self._threads.submit(_look_at, fleet, host_id, self.name)
        return look


@cache
def _crew(size: int) -> Crew:
    return Crew(size)


def look(fleet: Fleet, crew: Crew | None = None) -> int:
    """One round: a look at each host that is due, as far as threads are free; returns how many runs were seen to end
    while we waited."""
    crew = crew or _crew(fleet.config.look_threads)
    sent = [crew.send(fleet, host_id, failing) for host_id, failing in _taken(fleet, crew)]
    done, _ = wait(sent, timeout=WAIT_SECS)
    return sum(look.result() for look in done)


def _taken(fleet: Fleet, crew: Crew) -> list[tuple[str, bool]]:
    """The hosts that are ours to look at now; those that our threads are still at are kept from others."""
    at = fleet.clock()
    taken: list[tuple[str, bool]] = []
    with fleet.engine.begin() as conn:
        looks.begin(conn, at)
        for failing in (False, True):
            room = crew.free(failing) - len(taken)
            if room > 0:
                taken += [(host_id, failing) for host_id in looks.take(conn, crew.name, at, room, failing)]
        if crew.at_work:
            looks.renew(conn, crew.name, crew.at_work, at)
    return taken


def _look_at(fleet: Fleet, host_id: str, holder: str) -> int:
    """One host: what is new of its runs; returns how many ended. What breaks is logged, and holds up no other."""
    config = fleet.config
    try:
        seen = _fetch(fleet, host_id)
    except Exception as why:
        if not isinstance(why, Unreachable):
            log.exception("a look broke", host=host_id)
        log.warning("a host could not be looked at", host=host_id, why=str(why))
        with fleet.engine.begin() as conn:
            every = (config.look_secs, RARELY_SECS)
            looks.failed(conn, holder, host_id, fleet.clock(), every, fleet.mask.text(str(why)))
        return 0
    with fleet.engine.begin() as conn:
        every = (config.look_secs, SLOWEST_SECS)
        looks.answered(conn, holder, host_id, fleet.clock(), every, seen.news, seen.disk_free)
    return seen.ended


@dataclass
class Seen:
    """What a look has brought: how many runs ended, whether anything was new."""

    ended: int = 0
    news: bool = False
    disk_free: int | None = None


def _fetch(fleet: Fleet, host_id: str) -> Seen:
    """Poll until there is no more, or others should have a turn."""
    with fleet.engine.begin() as conn:
        host, ours = places.host(conn, host_id), runs.open_on_host(conn, host_id)
    seen, until = Seen(), time.monotonic() + TURN_SECS
    offsets = {run["name"]: {"stdout": run["stdout_size"], "stderr": run["stderr_size"]} for run in ours}
    while host is not None and ours:
        answer = reach.ask(host, "poll", _asked(fleet, host, ours, offsets))
        seen.disk_free = answer.get("disk_free")
        ours = _take_in(fleet, ours, answer["runs"], offsets, seen)
        if time.monotonic() > until:
            break
    return seen


def _asked(fleet: Fleet, host: Row, ours: list[Row], offsets: Mapping[str, dict[str, int]]) -> dict[str, Any]:
    asked = [{"run": run["name"], **offsets[run["name"]]} for run in ours]
    return command.about(fleet, host) | {"runs": asked, "limit": PIECE}


def _take_in(
    fleet: Fleet, ours: list[Row], told: Mapping[str, Any], offsets: Mapping[str, dict[str, int]], seen: Seen
) -> list[Row]:
    """What a host says of our runs; returns those whose log has more to fetch."""
    known = [run for run in ours if told[run["name"]].get("known")]
    report.beats(fleet, [run for run in known if run["started_at"] and _lives(told[run["name"]])])
    more = []
    for run in known:
        one = told[run["name"]]
        if run["started_at"] is None:
            report.started(fleet, run)
        if _hear(fleet, run, one, offsets[run["name"]], seen):
            more.append(run)
        elif one.get("result"):
            seen.ended += _guarded_finish(fleet, run, one["result"])
            seen.news = True
        elif one.get("step") != "agent":  # it will go on soon
            seen.news = True
    return more


def _lives(told: Mapping[str, Any]) -> bool:
    """A run whose supervisor's heart stands still is not seen alive: its lease runs out."""
    return bool(told.get("result")) or (told.get("beat_age") or 0) < HEART_SECS


def _hear(fleet: Fleet, run: Row, told: Mapping[str, Any], offsets: dict[str, int], seen: Seen) -> bool:
    """Take in the new bytes of a run's logs; True while there are more to fetch."""
    behind = news = False
    for stream in ("stdout", "stderr"):
        piece = told[stream]
        data, size = base64.b64decode(piece["data"]), piece["size"]
        whole = piece["offset"] + len(data) >= size
        if data or piece["offset"] > offsets[stream]:
            last = whole and bool(told.get("result"))
            offsets[stream] = report.log(fleet, run, stream, piece["offset"], data, more=not last, gap=True)
            seen.news = news = True
        behind |= not whole and bool(data)
    hearing.attend(fleet, run, news, ended=bool(told.get("result")))
    return behind


def _guarded_finish(fleet: Fleet, run: Row, result: Mapping[str, Any]) -> int:
    """One run whose end cannot be told now (the forge must be asked and does not answer) waits for the next look."""
    try:
        return int(finish(fleet, run, result))
    except Exception as why:
        log.warning("the end of a run could not be told", run=run["name"], why=str(why), exc_info=True)
        return 0

"""dequeue: the cost of a dequeue over HTTP, beside the bare statement and beside procrastinate; at a long backlog beside
a short one; and the delay until a waiting agent gets a new task. FLEET_BENCH_QUICK=1 runs it small."""

import os
import select
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app.store import dequeue
from bench.dequeuing.baselines import Procrastinate, floor, pgbench
from bench.dequeuing.load import Client, dequeues, dequeues_and_completes, drive, post
from bench.dequeuing.servers import CLIENTS, Stand, stand
from bench.figures import figure, quantile
from tests import backlog
from tests.builders import a_plain_task

QUICK = bool(os.environ.get("FLEET_BENCH_QUICK"))
SECS, ROUNDS = (2, 1) if QUICK else (4, 3)
SHORT, LONG = 5_000, int(os.environ.get("FLEET_BENCH_WAITING", "50000" if QUICK else "1000000"))
SETS = (5, 50, 500)
WAITERS, WAKES, JOBS = 40, 40 if QUICK else 200, 1_000 if QUICK else 3_000
SAMPLES = 50 if QUICK else 300
EMPTY = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"  # the most that one Flask process can do
Measured = Callable[[], float]


def main() -> None:
    with stand() as set_, tempfile.TemporaryDirectory(prefix="fleet-peer-") as folder:
        idle = set_.web_megabytes()
        _beside_the_floor(set_)
        _beside_procrastinate(set_, Procrastinate(Path(folder)))
        _wake_ups(set_)
        figure("dequeue: web process after all this", set_.web_megabytes(), "MB", idle)
        _at_a_long_backlog(set_)


def _beside_the_floor(set_: Stand) -> None:
    program = pgbench(set_)
    if program is None:
        return print("dequeue: pgbench is missing (apt install postgresql-contrib): no floor to compare with")
    kinds: dict[str, Measured] = {
        "floor": lambda: floor(set_, program, SECS),
        "empty answers": lambda: drive(set_.port, [lambda _: EMPTY] * CLIENTS, SECS),
        "one task": lambda: _http(set_, 1),
        "in tens": lambda: 10 * _http(set_, 10),
    }
    found = _rotated(kinds)
    for name in ("empty answers", "one task", "in tens"):
        ratios = [mine / bare for mine, bare in zip(found[name], found["floor"], strict=True)]
        value, against = statistics.median(found[name]), statistics.median(found["floor"])
        figure(
            f"dequeue: over HTTP, {name} (ratios {', '.join(f'{one:.2f}' for one in ratios)})",
            value,
            "tasks/s",
            against,
            ROUNDS,
        )


def _beside_procrastinate(set_: Stand, peer: Procrastinate) -> None:
    if peer.why:
        return print(f"dequeue: {peer.why}")
    found = _rotated({
        "procrastinate": lambda: peer.jobs_a_second(set_, JOBS),
        "one task": lambda: _http_to_the_end(set_, 1),
        "in tens": lambda: _http_to_the_end(set_, 10),
    })  # fmt: skip
    against = statistics.median(found["procrastinate"])
    for name in ("one task", "in tens"):
        figure(
            f"dequeue + complete over HTTP, {name}, beside procrastinate",
            statistics.median(found[name]),
            "tasks/s",
            against,
            ROUNDS,
        )


def _rotated(kinds: dict[str, Measured]) -> dict[str, list[float]]:
    """Measure each kind once per round; each round starts with another kind."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    names = list(kinds)
    for turn in range(ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(kinds[name]())
    return found


def _http(set_: Stand, most: int) -> float:
    set_.fill(SECS * 3000 * min(most, 5))
    return drive(set_.port, [dequeues(set_.agents(client), most) for client in range(CLIENTS)], SECS)


def _http_to_the_end(set_: Stand, most: int) -> float:
    set_.fill(SECS * 3000)
    done = [[0] for _ in range(CLIENTS)]
    nexts = [dequeues_and_completes(set_.agents(client), most, done[client]) for client in range(CLIENTS)]
    began = time.monotonic()
    drive(set_.port, nexts, SECS)
    return sum(count[0] for count in done) / (time.monotonic() - began)


def _wake_ups(set_: Stand) -> None:
    """The time from the commit of a task until a waiting agent has the response."""
    set_.fill(0)
    agents = [agent for client in range(CLIENTS) for agent in set_.agents(client)][:WAITERS]
    asks = [post("/tasks/dequeue", token, {"agent_id": name, "wait_secs": 30}) for name, token in agents]
    waiters = [Client(set_.port, lambda _, ask=ask: ask) for ask in asks]  # type: ignore[misc]
    for waiter in waiters:
        waiter.ask()
    times = [_wake(set_, waiters) for _ in range(WAKES)]
    for waiter in waiters:
        waiter.link.close()
    for share in (0.5, 0.99):
        figure(
            f"dequeue: long poll woken, {WAITERS} wait, p{share * 100:.0f}", quantile(times, share), "ms", 100, WAKES
        )


def _wake(set_: Stand, waiters: list[Client]) -> float:
    time.sleep(0.05)
    with set_.fleet.engine.begin() as conn:
        a_plain_task(conn, set_.fleet.clock())
    began = time.monotonic()
    while True:
        readable, _, _ = select.select([waiter.link for waiter in waiters], [], [], 30)
        for waiter in waiters:
            if waiter.link in readable and waiter.receive() is not None:
                took = (time.monotonic() - began) * 1000
                waiter.ask()
                return took


def _at_a_long_backlog(set_: Stand) -> None:
    """The cost of the search in the database, in pages and time; both backlogs in turns of one run."""
    for sets in SETS:
        found: dict[tuple[int, str], tuple[int, float]] = {}
        for waiting in (SHORT, LONG):
            set_.fill(waiting, sets, texts=SHORT)
            found |= {(waiting, case): _search(set_, sets, case) for case in backlog.CASES}
        for case in backlog.CASES:
            (pages, took), (few_pages, little) = found[LONG, case], found[SHORT, case]
            name = f"dequeue: {case}, {sets} sets, {LONG} waiting beside {SHORT}"
            figure(f"{name}: pages", pages, "pages", few_pages)
            figure(f"{name}: p50", took, "ms", little, SAMPLES)


def _search(set_: Stand, sets: int, case: str) -> tuple[int, float]:
    pages, times = backlog.pages(set_.conn, case, sets), []
    asking, can = backlog.asking(case), backlog.can(case, sets)
    for _ in range(SAMPLES):
        with set_.fleet.engine.connect() as conn:
            began = time.monotonic()
            if not dequeue.search(conn, asking).heads:
                dequeue.search_deeper(conn, can, 1, [])
            times.append((time.monotonic() - began) * 1000)
            conn.rollback()
    return pages, quantile(times, 0.5)


if __name__ == "__main__":
    main()

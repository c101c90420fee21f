"""Checks long polls: they hold no database connection, new work wakes them, and other requests are served meanwhile."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from app import wiring
from app.ports import Fleet
from tests import servers
from tests.agent_client import BASE
from tests.builders import a_plain_task
from tests.patience import patient, wait_until
from tests.web_process import Web, web_process

WAITERS, THREADS, SEATS = 40, 56, 42


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    """A web process with seats for 42 who wait."""
    name = servers.fresh_name()
    servers.create(name)
    try:
        with web_process(servers.url(name), FLEET_WEB_THREADS=str(THREADS)) as web:
            yield web
    finally:
        servers.drop(name)


@pytest.fixture
def house(web: Web) -> Iterator[Fleet]:
    """Another process that creates tasks."""
    given = servers.config(DATABASE_URL=web.database, REDIS_URL=servers.valkey_url())
    fleet = wiring.fleet(given, connections=1)
    yield fleet
    fleet.engine.dispose()


def new_task(house: Fleet) -> str:
    with house.engine.begin() as conn:
        return a_plain_task(conn, datetime.now(UTC)).task_id


class Waiter(threading.Thread):
    """An agent that asks with patience, once."""

    def __init__(self, web: Web, name: str, wait_secs: float = 25) -> None:
        super().__init__(daemon=True)
        self.web, self.agent, self.wait_secs, self.token = web, name, wait_secs, web.register(name)
        self.status, self.answered = 0, 0.0
        self.told: Any = None
        self.retry_after: str | None = None
        self.link = http.client.HTTPConnection("127.0.0.1", web.port, timeout=patient(40))

    def run(self) -> None:
        body = json.dumps({"agent_id": self.agent, "wait_secs": self.wait_secs})
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        self.link.request("POST", f"{BASE}/tasks/dequeue", body, headers)
        answer = self.link.getresponse()
        said = answer.read()
        self.status, self.told, self.retry_after = (
            answer.status,
            json.loads(said or b"null"),
            answer.getheader("Retry-After"),
        )
        self.answered = time.monotonic()
        self.link.close()


@pytest.fixture
def crowd(web: Web) -> Iterator[list[Waiter]]:
    """40 agents who wait."""
    empty_the_queue(web)
    waiters = [Waiter(web, f"w{number}") for number in range(WAITERS)]
    begun = datetime.now(UTC)
    for waiter in waiters:
        waiter.start()
    wait_until(lambda: sleeping(web, begun) >= WAITERS, "all agents wait")
    yield waiters
    for waiter in waiters:
        if waiter.is_alive():
            web.call("POST", "/agents/deregister", waiter.token, agent_id=waiter.agent)
    assert web.call("POST", "/tasks", title="Wake", requirements="")[0] == 201  # wakes waiters whose agent has left
    for waiter in waiters:
        waiter.join(patient(35))


def sleeping(web: Web, since: datetime) -> int:
    """How many of the web process's agents have asked since then: each is seen when it asks."""
    asked = "SELECT count(*) FROM agents WHERE seen_at >= %s AND agent_id LIKE 'w%%'"
    with psycopg.connect(web.database.replace("+psycopg", "")) as conn:
        row = conn.execute(asked, (since,)).fetchone()
        return int(row[0]) if row else 0


def empty_the_queue(web: Web) -> None:
    with psycopg.connect(web.database.replace("+psycopg", "")) as conn:
        conn.execute("UPDATE tasks SET ready = false, state = 'cancelled' WHERE ready")


def at_work(web: Web) -> int:
    """The connections to the web process's database that do something or hold a transaction."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    with psycopg.connect(web.database.replace("+psycopg", "")) as conn:
        row = conn.execute(busy).fetchone()
        return int(row[0]) if row else 0


def connections(web: Web) -> int:
    every = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(web.database.replace("+psycopg", "")) as conn:
        row = conn.execute(every).fetchone()
        return int(row[0]) if row else 0


def test_forty_who_wait_hold_no_connection_and_others_are_answered(web: Web, house: Fleet, crowd: list[Waiter]) -> None:
    wait_until(lambda: at_work(web) == 0, "no connection is busy")
    assert connections(web) <= 8 + 4 + 1 + 1  # the pool of the web process, its listener, and those who make tasks here
    assert web.call("GET", "/tasks")[0] == 200
    assert web.call("GET", "/readyz")[0] == 200


def test_new_work_wakes_one_of_those_who_wait_and_only_one_gets_it(web: Web, house: Fleet, crowd: list[Waiter]) -> None:
    made = [new_task(house) for _ in range(3)]
    wait_until(lambda: sum(waiter.status == 200 for waiter in crowd) == 3, "three agents have a task")
    got = [waiter.told["task_id"] for waiter in crowd if waiter.status == 200]
    assert sorted(got) == sorted(made)
    wait_until(lambda: sum(waiter.is_alive() for waiter in crowd) == WAITERS - 3, "all others wait")


def test_when_every_seat_is_taken_who_comes_hears_when_to_come_again(
    web: Web, house: Fleet, crowd: list[Waiter]
) -> None:
    more = [Waiter(web, f"x{number}", 20) for number in range(4)]
    for waiter in more:
        waiter.start()
    wait_until(
        lambda: sum(waiter.status == 429 for waiter in more) == 4 - (SEATS - WAITERS),
        "those without a seat have an answer",
    )
    busy = next(waiter for waiter in more if waiter.status == 429)
    assert busy.told["code"] == "busy"
    assert int(busy.retry_after or 0) > 0
    assert (
        web.call("POST", "/tasks/dequeue", busy.token, agent_id=busy.agent)[0] == 204
    )  # who does not wait is answered
    made = {new_task(house) for _ in range(2)}
    wait_until(lambda: sum(waiter.status == 200 for waiter in [*crowd, *more]) == 2, "two agents have a task")
    assert {waiter.told["task_id"] for waiter in [*crowd, *more] if waiter.status == 200} == made
    for waiter in more:
        if waiter.is_alive():
            web.call("POST", "/agents/deregister", waiter.token, agent_id=waiter.agent)


def test_a_web_process_that_is_told_to_end_answers_those_who_wait(web: Web, crowd: list[Waiter]) -> None:
    web.stop()
    for waiter in crowd:
        waiter.join(patient(35))
    web.start()
    assert {waiter.status for waiter in crowd} == {204}


def test_a_burst_of_work_rings_few_times(house: Fleet) -> None:
    address = house.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as listener:
        listener.execute("LISTEN fleet_work")
        with ThreadPoolExecutor(1) as pool:
            made = [pool.submit(new_task, house) for _ in range(100)]
            began = time.monotonic()
            for one in made:
                one.result()
            took = time.monotonic() - began
        rings = len(list(listener.notifies(timeout=1)))
    assert 1 <= rings <= took / 0.02 + 3

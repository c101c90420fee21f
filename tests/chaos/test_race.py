"""40 agents and 3 hosts race for the same tasks while agents die, answers are lost and the web process is killed.

FLEET_RACE_TASKS=2000 is the whole race; the suite runs a shorter one."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from app import wiring
from app.domain.task import Mode
from app.ports import Fleet
from app.services.replay import differences
from app.store import tasks as rows
from app.store.tables import tasks
from tests import servers
from tests.builders import a_host, a_plain_task, apply
from tests.chaos import check_history
from tests.chaos.check_history import Place
from tests.chaos.race_players import AgentPlayer, Clock, Hosts, Issuer, Killer, Player, Race
from tests.conftest import CountingNudge
from tests.patience import patient, wait_until
from tests.web_process import Web, web_process

TASKS = int(os.environ.get("FLEET_RACE_TASKS", "300"))
AGENTS = 40
SETS = [
    (),
    ("python",),
    ("rust",),
    ("gpu",),
    ("python", "gpu"),
    ("python", "rust"),
    ("review",),
    ("gpu", "review", "rust"),
]
MODES = [Mode.UNDECIDED] * 3 + [Mode.HTTP_PULL, Mode.SSH_CLI]
WORDS = ("python", "rust", "gpu", "review")
SHORT = {
    "FLEET_HEARTBEAT_SECS": "1", "FLEET_OFFLINE_AFTER_SECS": f"{patient(3):.0f}", "FLEET_CONFIRM_SECS": f"{patient(2):.0f}",
}  # fmt: skip

pytestmark = [pytest.mark.timeout(300)]


@pytest.fixture
def track() -> Iterator[tuple[Web, Fleet]]:
    """A database of its own, a web process and a fleet for those who play hosts; silence is short here."""
    name = servers.fresh_name()
    servers.create(name)
    try:
        with web_process(servers.url(name), **SHORT) as web:
            given = servers.config(DATABASE_URL=servers.url(name), REDIS_URL=servers.valkey_url(), **SHORT)
            fleet = wiring.fleet(given, connections=4)
            yield web, replace(fleet, nudge=CountingNudge())
            fleet.engine.dispose()
    finally:
        servers.drop(name)


def agents() -> dict[str, Place]:
    """Some can do one thing, some everything; each thing can be done by many."""
    chance = random.Random(7)
    some = [frozenset(chance.sample(WORDS, chance.randint(1, 3))) for _ in range(AGENTS - 8)] + [frozenset(WORDS)] * 8
    return {f"agent-{number}": Place(words, 1 + number % 5) for number, words in enumerate(some)}


HOSTS = {
    "host-0": Place(frozenset(WORDS), 5), "host-1": Place(frozenset({"python", "rust"}), 3), "host-2": Place(frozenset({"gpu"}), 2),
}  # fmt: skip


def ask_for(fleet: Fleet, count: int) -> None:
    """So many tasks, of every kind of need, mode and priority."""
    chance, at = random.Random(count), datetime.now(UTC)
    with fleet.engine.begin() as conn:
        sets = [rows.requirement_set(conn, tuple(sorted(names))) for names in SETS]
        for _ in range(count):
            a_plain_task(
                conn,
                at,
                mode=chance.choice(MODES),
                priority=chance.randint(0, 3),
                requirement_set_id=chance.choice(sets),
            )


def run_to_the_end(race: Race, players: list[Player]) -> None:
    for player in players:
        player.start()
    try:
        wait_until(lambda: unfinished(race.fleet) == 0, "each task is completed", 150, pause=0.2)
    finally:
        race.over.set()
        for player in players:
            player.join(patient(30))


def unfinished(fleet: Fleet) -> Any:
    with fleet.engine.begin() as conn:
        return conn.execute(sa.select(sa.func.count()).where(tasks.c.state != "completed")).scalar()


def test_each_task_is_done_once_by_one_that_can_and_has_room(track: tuple[Web, Fleet]) -> None:
    web, fleet = track
    with fleet.engine.begin() as conn:
        apply(conn, hosts=[a_host(name, place.slots, tuple(place.capabilities)) for name, place in HOSTS.items()])
    ask_for(fleet, TASKS // 2)
    race, crowd = Race(web, fleet), agents()
    players: list[Player] = [AgentPlayer(race, name, place, seed) for seed, (name, place) in enumerate(crowd.items())]
    rest = [lambda: ask_for(fleet, TASKS // 20)] * 10
    players += [Hosts(race, "hosts", 1), Clock(race, "clock", 2), Killer(race, after=(2, 4)), Issuer(race, rest)]
    run_to_the_end(race, players)
    print(dict(race.met))

    events, sets = check_history.read(servers.url(fleet.engine.url.database or "").replace("+psycopg", ""))
    assert check_history.faults(events, sets, crowd | HOSTS) == []
    assert race.complaints == []
    assert len({event["task_pk"] for event in events}) == TASKS
    assert max(race.done.values()) == 1
    sides = {event["kind"] for event in events if event["kind"] in check_history.TAKINGS}
    assert sides == set(check_history.TAKINGS)
    assert {"an agent died", "an answer to dequeue lost", "an answer to complete lost", "cut off"} <= set(race.met)
    assert differences(fleet) == (TASKS, [])

"""Checks the query of the dequeue: its order, its cost at any backlog, and that each row is given out once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from app.store import dequeue
from tests import backlog, servers

SHORT, LONG = 5_000, 60_000
SETS = (5, 50, 500)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    name = servers.fresh_name()
    servers.create(name)
    yield servers.url(name)
    servers.drop(name)


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as conn:
        yield conn


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database, pool_size=20)
    yield engine
    engine.dispose()


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from steps(below)


@pytest.mark.parametrize("sets", SETS)
def test_the_pages_touched_are_the_same_at_any_backlog(conn: psycopg.Connection[Any], sets: int) -> None:
    found = {}
    for waiting in (SHORT, LONG):
        backlog.fill(conn, waiting, sets, texts=1000)
        found[waiting] = {case: backlog.pages(conn, case, sets) for case in backlog.CASES}
    for case in backlog.CASES:
        assert found[LONG][case] <= 1.2 * found[SHORT][case] + 8, found
        assert found[LONG][case] <= 260, found


@pytest.mark.parametrize("waiting", [600, SHORT])
def test_the_plan_walks_the_queues_index_and_locks_no_more_than_it_takes(
    conn: psycopg.Connection[Any], waiting: int
) -> None:
    backlog.fill(conn, waiting)
    for case in backlog.CASES:
        for statement in backlog.statements(conn, case, 5):
            plan = list(steps(backlog.explained(conn, statement)))
            assert any(one.get("Index Name", "").endswith("for_agents_idx") for one in plan), plan
            assert all(one["Actual Rows"] * one["Actual Loops"] <= 1 for one in plan if one["Node Type"] == "LockRows")


def test_what_an_agent_holds_is_counted_by_its_own_index_also_when_nobody_holds_anything(
    conn: psycopg.Connection[Any],
) -> None:
    """The plan that is made while the table is empty is the one that is kept."""
    backlog.fill(conn, 100)
    plan = list(steps(backlog.explained(conn, backlog.statements(conn, backlog.ALL, 5)[0])))
    used = {one["Index Name"] for one in plan if one.get("Relation Name") == "runs"}
    assert used == {"runs_of_agent_idx"}


@pytest.mark.parametrize("most", [1, 7, 50])
@pytest.mark.parametrize("waiting", [60, 500])
def test_the_order_holds_whatever_plan_is_chosen(
    conn: psycopg.Connection[Any], engine: Engine, waiting: int, most: int
) -> None:
    backlog.fill(conn, waiting)
    conn.execute("UPDATE tasks SET priority = (id * 7919) % 4")
    wanted = [row[0] for row in conn.execute("SELECT id FROM tasks ORDER BY priority DESC, id")]
    for settings in ("", "enable_nestloop", "enable_hashjoin", "enable_indexscan", "enable_tidscan"):
        for query in (dequeue.search, None):
            with engine.connect() as link:
                if settings:
                    link.exec_driver_sql(f"SET LOCAL {settings} = off")
                if query:
                    got = query(link, backlog.asking(most=most)).heads
                else:
                    got = dequeue.search_deeper(link, backlog.can(backlog.ALL, 5), most, [])
                assert [row["id"] for row in got] == wanted[:most], (settings, query)
                link.rollback()


def test_whoever_may_not_ask_gets_and_locks_nothing(conn: psycopg.Connection[Any], engine: Engine) -> None:
    backlog.fill(conn, 100)
    for stranger in (backlog.asking("nobody"), backlog.asking()._replace(token_hash=b"1" * 32)):
        with engine.connect() as link:
            found = dequeue.search(link, stranger)
            assert (found.agent, found.heads) == (None, [])
            assert len(conn.execute("SELECT FROM tasks FOR UPDATE SKIP LOCKED").fetchall()) == 100


def test_work_behind_what_others_hold_is_found(conn: psycopg.Connection[Any], engine: Engine) -> None:
    """64 heads that others hold hide nothing."""
    backlog.fill(conn, 400)
    backlog.enlist(conn, "other", capabilities=backlog.can(backlog.ALL, 5))
    with engine.connect() as first, engine.connect() as second:
        held = dequeue.search(first, backlog.asking(most=50)).heads
        held += dequeue.search_deeper(first, backlog.can(backlog.ALL, 5), 100, [row["id"] for row in held])
        assert dequeue.search(second, backlog.asking("other")).heads == []
        assert dequeue.search_deeper(second, backlog.can(backlog.ALL, 5), 1, []) != []


def test_many_who_ask_at_once_get_each_row_once(conn: psycopg.Connection[Any], engine: Engine) -> None:
    backlog.fill(conn, 300)
    for number in range(12):
        backlog.enlist(conn, f"a{number}", slots=30, capabilities=backlog.can(backlog.ALL, 5))

    def take(number: int) -> list[int]:
        mine: list[int] = []
        for _ in range(3):
            with engine.begin() as link:
                got = [row["id"] for row in dequeue.search(link, backlog.asking(f"a{number}", 10)).heads]
                link.exec_driver_sql("UPDATE tasks SET ready = false, state = 'assigned' WHERE id = ANY(%s)", (got,))
                mine += got
        return mine

    with ThreadPoolExecutor(12) as pool:
        got = [one for mine in pool.map(take, range(12)) for one in mine]
    assert len(got) == len(set(got))

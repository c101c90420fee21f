"""Checks which hosts are due for a poll: each goes to one worker; quiet and failing hosts are polled less often."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine

from app.domain.lifecycle import Fact, FactKind
from app.store import host_polls, tasks
from tests.builders import AT, a_host, a_stored_task, apply

EVERY = (1.0, 5.0)


def with_runs(conn: Connection, count: int) -> None:
    """So many hosts, each with an open run."""
    apply(conn, hosts=[a_host(f"h{n}") for n in range(count)])
    for n in range(count):
        task = a_stored_task(conn, f"acme/widgets#{n + 1}")
        placed = {"host_id": f"h{n}", "agent_type": "coder", "until": AT.isoformat()}
        tasks.record(conn, task.id, Fact(FactKind.PLACED, placed), AT)
    host_polls.begin(conn, AT)


def test_two_who_ask_at_once_get_different_hosts(engine: Engine) -> None:
    with engine.begin() as conn:
        with_runs(conn, 12)

    def ask(name: str) -> list[str]:
        with engine.begin() as conn:
            return host_polls.take(conn, name, AT, most=5)

    with ThreadPoolExecutor(4) as four:
        taken = [host for hosts in four.map(ask, "abcd") for host in hosts]
    assert len(taken) == len(set(taken)) >= 10


def test_no_plan_of_postgres_gives_more_hosts_than_asked_for(conn: Connection) -> None:
    with_runs(conn, 6)
    for plan in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
        conn.exec_driver_sql(f"SET LOCAL enable_{plan} = off")
    assert [len(host_polls.take(conn, name, AT, most=2)) for name in "abcd"] == [2, 2, 2, 0]


def test_a_host_is_held_until_its_look_ends_or_its_holder_is_gone(conn: Connection) -> None:
    with_runs(conn, 1)
    assert host_polls.take(conn, "a", AT, most=5) == ["h0"]
    assert host_polls.take(conn, "b", AT + timedelta(seconds=9), most=5) == []
    host_polls.renew(conn, "a", ["h0"], AT + timedelta(seconds=9))
    assert host_polls.take(conn, "b", AT + timedelta(seconds=18), most=5) == []
    assert host_polls.take(conn, "b", AT + timedelta(seconds=20), most=5) == ["h0"]
    answered(conn, AT, news=True)  # too late: it is another's now
    assert host_polls.take(conn, "c", AT + timedelta(seconds=21), most=5) == []


def answered(conn: Connection, at: datetime, news: bool, disk_free: int | None = None) -> None:
    host_polls.answered(conn, "a", at, EVERY, [host_polls.Answered("h0", news, disk_free, [])])


def wait_after(conn: Connection, news: bool) -> float:
    row = host_polls.of(conn, "h0")
    assert row is not None
    [_] = host_polls.take(conn, "a", row["next_at"], most=1)
    answered(conn, row["next_at"], news=news)
    after = host_polls.of(conn, "h0")
    assert after is not None
    return float((after["next_at"] - row["next_at"]).total_seconds())


def test_a_quiet_host_is_looked_at_more_and_more_rarely_until_there_is_news(conn: Connection) -> None:
    with_runs(conn, 1)
    assert [wait_after(conn, news=False) for _ in range(6)] == pytest.approx([1.5, 2.25, 3.375, 5, 5, 5])
    assert wait_after(conn, news=True) == 1


def test_who_waits_for_news_has_the_host_looked_at_now(conn: Connection) -> None:
    with_runs(conn, 1)
    for _ in range(5):
        wait_after(conn, news=False)
    host_polls.hurry(conn, "h0", AT)
    assert host_polls.take(conn, "a", AT, most=1) == ["h0"]


def test_hosts_that_do_not_answer_are_handed_out_apart_and_tried_more_rarely(conn: Connection) -> None:
    with_runs(conn, 2)
    host_polls.take(conn, "a", AT, most=1)
    for tries in range(1, 8):
        host_polls.failed(conn, "a", "h0", AT, (1, 15), "no route")
        row = host_polls.of(conn, "h0")
        assert row is not None and row["failing_since"] == AT
        assert (row["next_at"] - AT).total_seconds() == min(2**tries, 15)
        assert host_polls.take(conn, "a", row["next_at"], most=9, failing=True) == ["h0"]
    assert host_polls.take(conn, "a", AT + timedelta(hours=1), most=9) == ["h1"]
    answered(conn, AT, news=False, disk_free=7)
    row = host_polls.of(conn, "h0")
    assert row is not None and (row["failing_since"], row["why"], row["disk_free"]) == (None, None, 7)

"""Checks `tasks.record`: the change, its event and its outbox entries are written together or not at all."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State
from app.store import events, outbox, tasks
from app.store.tables import runs
from tests.builders import AT, a_fact, a_stored_task

PLACED = {"host_id": "localhost", "agent_type": "coder", "until": AT.isoformat()}


def test_a_move_writes_the_event_the_outbox_entries_and_the_run_together(conn: Connection) -> None:
    task = a_stored_task(conn)
    moved = tasks.record(conn, task.id, Fact(FactKind.PLACED, PLACED), AT)
    assert (moved.state, moved.run, moved.version) == (State.ASSIGNED, 1, 2)
    assert [event.kind for event in events.of_task(conn, task.id)] == ["requested", "placed"]
    assert [entry.kind for entry in outbox.of_task(conn, task.id) if entry.seq == 2] == [
        "start",
        "label",
        "assign",
    ]
    assert conn.execute(sa.select(runs.c.number, runs.c.agent_type)).all() == [(1, "coder")]


def test_a_refused_fact_changes_nothing_at_all(conn: Connection) -> None:
    task = a_stored_task(conn)
    with pytest.raises(Refused) as refused:
        tasks.record(conn, task.id, a_fact(FactKind.CHANGES_REQUESTED), AT)
    assert refused.value.kind is Kind.INVALID
    assert "review_pending" in str(refused.value)
    assert tasks.load(conn, task.id) == task
    assert {entry.seq for entry in outbox.of_task(conn, task.id)} == {1}


def test_who_asked_for_work_on_an_issue_is_owed_a_word_at_once(conn: Connection) -> None:
    assert [entry.kind for entry in outbox.of_task(conn, a_stored_task(conn).id)] == ["comment", "label"]
    assert outbox.of_task(conn, a_stored_task(conn, task_id="api#7", forge=None, issue_number=None).id) == []


def test_a_fact_with_a_key_is_heard_once(conn: Connection) -> None:
    task = a_stored_task(conn)
    opened = a_fact(FactKind.PULL_OPENED, run=1, number=13, head="a" * 40)
    tasks.record(conn, task.id, Fact(FactKind.PLACED, PLACED), AT)
    tasks.record(conn, task.id, opened, AT)
    review = a_fact(FactKind.CHANGES_REQUESTED, key="review 7", until=AT.isoformat())
    once = tasks.record(conn, task.id, review, AT)
    assert tasks.record(conn, task.id, review, AT) == once
    assert once.review_count == 1


def test_of_many_who_place_one_task_at_once_one_wins(engine: Engine) -> None:
    with engine.begin() as conn:
        task = a_stored_task(conn)

    def place(number: int) -> str:
        try:
            with engine.begin() as conn:
                tasks.record(conn, task.id, Fact(FactKind.PLACED, PLACED | {"host_id": f"host-{number}"}), AT)
        except Refused:
            return "refused"
        return "won"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(place, range(16)))
    assert sorted(answers) == ["refused"] * 15 + ["won"]
    with engine.begin() as conn:
        assert conn.execute(sa.select(sa.func.count()).select_from(runs)).scalar() == 1
        assert tasks.load(conn, task.id).version == 2


@pytest.mark.parametrize("statement", ["UPDATE events SET kind = 'x'", "DELETE FROM events", "TRUNCATE events CASCADE"])
def test_the_database_refuses_to_change_history(conn: Connection, statement: str) -> None:
    a_stored_task(conn)
    with pytest.raises(DBAPIError, match="append-only"):
        conn.execute(sa.text(statement))


def test_the_same_task_id_asked_for_twice_is_one_task(conn: Connection) -> None:
    first = a_stored_task(conn)
    assert a_stored_task(conn).id == first.id
    assert len(events.of_task(conn, first.id)) == 1


def test_events_amount_to_the_row(conn: Connection) -> None:
    task = a_stored_task(conn)
    for fact in (
        Fact(FactKind.PLACED, PLACED),
        a_fact(FactKind.STARTED, run=1),
        a_fact(FactKind.FAILED, run=1, reason="cli_failed", transient=True, session="s"),
        a_fact(FactKind.DUE),
    ):
        task = tasks.record(conn, task.id, fact, AT)
    assert tasks.replayed(events.of_task(conn, task.id)) == task == tasks.load(conn, task.id)

"""Answers to dequeues are kept to be repeated: only those with tasks, and only for a day."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy import Connection

from app.ports import Fleet
from app.services.agents import leases
from app.store import agents
from app.store.tables import dequeue_answers
from tests.agent_client import Agent, an_agent
from tests.builders import a_plain_task
from tests.conftest import FakeClock


@pytest.fixture
def agent(client: FlaskClient) -> Agent:
    return an_agent(client, max_concurrency=2)


def a_waiting_task(fleet: Fleet) -> str:
    with fleet.engine.begin() as conn:
        return a_plain_task(conn, fleet.clock()).task_id


def count(fleet: Fleet) -> int:
    with fleet.engine.begin() as conn:
        return int(conn.scalar(sa.select(sa.func.count()).select_from(dequeue_answers)) or 0)


def test_the_same_key_gets_the_same_task_again(fleet: Fleet, agent: Agent) -> None:
    task_id = a_waiting_task(fleet)
    first, again = agent.dequeue("key-1").get_json(), agent.dequeue("key-1").get_json()
    assert (first["task_id"], again["task_id"], again["lease"]) == (task_id, task_id, first["lease"])
    assert count(fleet) == 1


def test_an_empty_answer_is_not_kept_and_its_key_asks_again(fleet: Fleet, agent: Agent) -> None:
    assert (agent.dequeue("key-1").status_code, count(fleet)) == (204, 0)
    task_id = a_waiting_task(fleet)
    assert agent.dequeue("key-1").get_json()["task_id"] == task_id


def test_answers_are_forgotten_after_a_day(fleet: Fleet, agent: Agent, clock: FakeClock) -> None:
    for key in ("old", "new"):
        a_waiting_task(fleet)
        assert agent.dequeue(key).status_code == 200
        clock.pass_(timedelta(hours=20).total_seconds())
    assert (leases.forget_answers(fleet), count(fleet)) == (1, 1)
    with fleet.engine.begin() as conn:
        assert agents.answer(conn, "a1", "old") is None and agents.answer(conn, "a1", "new")


def test_the_oldest_are_forgotten_first_some_at_a_time(conn: Connection, fleet: Fleet, client: FlaskClient) -> None:
    an_agent(client)
    at = fleet.clock()
    for hours in (50, 40, 30):
        agents.keep_answer(conn, "a1", f"{hours} h ago", [{}], at - timedelta(hours=hours))
    assert agents.forget_answers(conn, at, most=2) == 2
    assert agents.answer(conn, "a1", "30 h ago") == [{}]

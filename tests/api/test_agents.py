"""Agents register, rotate their tokens, leave, and are revoked; operators list them. Invalid fields are named."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from app.domain.task import State
from app.ports import Fleet
from app.services.agents import registry
from app.store import tasks
from app.store.tables import agents
from tests.agent_client import BASE, ENROLL, Agent, an_agent, register
from tests.api.agent_api_setup import state_of, waiting
from tests.api.test_tasks import assert_error
from tests.conftest import FakeClock


class TestRegistry:
    def test_a_new_agent_gets_a_token_and_the_times_it_must_keep(self, client: FlaskClient) -> None:
        answer = register(client)
        assert answer.status_code == 201
        told = answer.get_json()
        assert (told["agent_id"], told["heartbeat_interval_secs"], told["offline_after_secs"]) == ("a1", 60, 180)
        assert len(told["registry_token"]) >= 32

    def test_the_token_is_stored_as_a_hash(self, client: FlaskClient, fleet: Fleet) -> None:
        token = an_agent(client).token
        with fleet.engine.begin() as conn:
            row = str(dict(conn.execute(sa.select(agents)).mappings().one()))
        assert token not in row

    def test_one_that_is_known_is_updated_and_its_old_token_works_a_minute_more(
        self, client: FlaskClient, clock: FakeClock
    ) -> None:
        old = an_agent(client)
        answer = register(client, token=old.token, capabilities=["agent:Rust"], max_concurrency=3)
        assert answer.status_code == 200
        new = Agent(client, "a1", answer.get_json()["registry_token"])
        assert old.beat() == new.beat() == []
        clock.pass_(61)
        assert_error(old.post("/agents/heartbeat"), 401, "unauthorized")
        assert new.beat() == []
        shown = client.get(f"{BASE}/agents").get_json()
        assert [(one["agent_id"], one["capabilities"], one["max_concurrency"]) for one in shown] == [
            ("a1", ["rust"], 3)
        ]

    def test_the_token_of_one_agent_does_not_renew_another(self, client: FlaskClient) -> None:
        assert_error(register(client, "a2", token=an_agent(client).token), 403, "forbidden", "a1")

    @pytest.mark.parametrize("token", ["", "wrong", "operator-token-of-the-test"])
    def test_nobody_registers_without_an_enrolment_token(self, client: FlaskClient, token: str) -> None:
        assert_error(register(client, token=token), 401, "unauthorized", "enrol")

    def test_an_enrolment_token_can_be_revoked_and_can_expire(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        week, ever = (
            registry.create_enrolment_token(fleet, "lab", 7),
            registry.create_enrolment_token(fleet, "office", None),
        )
        assert register(client, "a1", week).status_code == register(client, "a2", ever).status_code == 201
        clock.pass_(timedelta(days=8).total_seconds())
        assert_error(register(client, "a3", week), 401, "unauthorized")
        registry.revoke_enrolment_token(fleet, "office")
        assert_error(register(client, "a3", ever), 401, "unauthorized")

    def test_a_revoked_agent_is_refused_and_what_it_held_goes_back(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        agent.take()
        assert registry.revoke(fleet, "a1") == [task_id]
        assert_error(agent.post("/agents/heartbeat"), 401, "unauthorized")
        assert_error(register(client, token=ENROLL), 403, "forbidden", "revoked")
        assert state_of(fleet, task_id) is State.CREATED

    def test_an_agent_that_leaves_gives_its_tasks_back_and_no_attempt_counts(
        self, client: FlaskClient, fleet: Fleet
    ) -> None:
        waiting(fleet, 1), waiting(fleet, 2)
        agent = an_agent(client, max_concurrency=2)
        agent.take(), agent.dequeue()
        answer = agent.post("/agents/deregister")
        assert sorted(answer.get_json()["requeued"]) == ["acme/widgets#1", "acme/widgets#2"]
        with fleet.engine.begin() as conn:
            assert [(t.state, t.ready, t.retry_count) for t in tasks.all_tasks(conn)] == [(State.CREATED, True, 0)] * 2
        assert_error(agent.post("/agents/heartbeat"), 404, "unknown", "register")
        assert register(client, token=agent.token).status_code == 200

    def test_operators_see_who_is_there_and_who_is_silent(self, client: FlaskClient, clock: FakeClock) -> None:
        an_agent(client), an_agent(client, "a2", capabilities=["rust"])
        clock.pass_(170)
        register(client, "a2")
        clock.pass_(20)
        listed = {one["agent_id"]: one["status"] for one in client.get(f"{BASE}/agents").get_json()}
        assert listed == {"a1": "offline", "a2": "online"}
        assert [one["agent_id"] for one in client.get(f"{BASE}/agents?status=offline").get_json()] == ["a1"]
        assert client.get(f"{BASE}/agents?capability=agent:cobol").get_json() == []


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [("/agents/register", {"agent_id": "../x"}, "agent_id"), ("/agents/register", {"capabilities": "python"}, "capabilities"),
     ("/agents/register", {"max_concurrency": True}, "max_concurrency"), ("/agents/register", {"max_concurrency": 0}, "max_concurrency"),
     ("/agents/heartbeat", {"tasks": [{"task_id": "x"}]}, "lease"), ("/tasks/dequeue", {"wait_secs": 31}, "wait_secs"),
     ("/tasks/dequeue", {"max_tasks": "ten"}, "max_tasks"), ("/tasks/x%231/status", {"status": "done"}, "status"),
     ("/tasks/x%231/complete", {"status": "completed", "artifacts": [{"type": "pr"}]}, "url"),
     ("/tasks/x%231/complete", {"status": "completed", "artifacts": [{"type": "tree"}]}, "type"),
     ("/tasks/x%231/complete", {"status": "completed", "usage": {"cost_usd": "NaN"}}, "cost_usd"),
     ("/receipts", {"status": "completed"}, "task_id")],
)  # fmt: skip
def test_a_missing_or_mistyped_field_is_named(client: FlaskClient, path: str, body: Any, named: str) -> None:
    agent = an_agent(client)
    agent.token = ENROLL if "register" in path else agent.token
    about = {"agent_type": "t", "hostname": "h", "capabilities": []} if "register" in path else {}
    assert_error(agent.post(path, **about | body), 400, "invalid", named)

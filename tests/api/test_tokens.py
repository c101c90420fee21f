"""Tokens: which schemes count, how long an old one works, and what belongs to whom."""

import pytest
from flask.testing import FlaskClient

from app.ports import Fleet
from app.services.agents import registry
from app.store import tasks
from tests.agent_client import BASE, ENROLL, Agent, an_agent, register
from tests.api.agent_api_setup import tick, waiting
from tests.api.test_tasks import assert_error
from tests.conftest import FakeClock


class TestTokens:
    @pytest.mark.parametrize("scheme", ["Token {}", "Basic {}", "{}", "Bearer{}", "Digest {}", "Bearer x {}"])
    @pytest.mark.parametrize("path", ["/agents/heartbeat", "/agents/register", "/tasks/dequeue"])
    def test_another_scheme_is_no_token(self, client: FlaskClient, scheme: str, path: str) -> None:
        token = ENROLL if path == "/agents/register" else an_agent(client).token
        body = {"agent_id": "a1", "agent_type": "c", "hostname": "h", "capabilities": []}
        answer = client.post(f"{BASE}{path}", json=body, headers={"Authorization": scheme.format(token)})
        assert_error(answer, 401, "unauthorized")

    def test_a_password_that_a_browser_sends_by_itself_opens_pages_and_changes_nothing(
        self, client: FlaskClient, fleet: Fleet
    ) -> None:
        waiting(fleet)
        people = {"auth": ("", "operator-token-of-the-test")}
        client.environ_base.pop("HTTP_AUTHORIZATION")
        assert client.get(f"{BASE}/docs", **people).status_code == 200
        assert_error(client.post(f"{BASE}/tasks/acme%2Fwidgets%2312/cancel", **people), 401, "unauthorized")
        assert_error(client.get(f"{BASE}/tasks", **people), 401, "unauthorized")

    def test_the_token_of_a_revoked_agent_stays_worthless_when_it_may_register_again(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        old = an_agent(client)
        new = Agent(client, "a1", register(client, token=old.token).get_json()["registry_token"])
        registry.revoke(fleet, "a1")
        for gone in (old, new):
            assert_error(gone.post("/agents/heartbeat"), 401, "unauthorized")
            assert_error(register(client, token=gone.token), 401, "unauthorized")
        registry.restore(fleet, "a1")
        for gone in (old, new):
            assert_error(gone.dequeue(), 401, "unauthorized")
            assert_error(register(client, token=gone.token), 401, "unauthorized")
        assert register(client).status_code == 200

    def test_an_old_token_works_its_minute_for_every_call_and_not_a_second_more(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        waiting(fleet, 1), waiting(fleet, 2)
        old = an_agent(client, max_concurrency=2)
        new = Agent(client, "a1", register(client, token=old.token, max_concurrency=2).get_json()["registry_token"])
        clock.pass_(59)
        task = old.take()
        assert new.say(task, "status", status="running").status_code == 200
        clock.pass_(2)
        assert_error(old.say(task, "status", status="running"), 401, "unauthorized")
        assert_error(old.dequeue(), 401, "unauthorized")
        assert new.dequeue().status_code == 200

    def test_whoever_rotates_twice_has_one_old_token_at_most(self, client: FlaskClient) -> None:
        first = an_agent(client)
        second = Agent(client, "a1", register(client, token=first.token).get_json()["registry_token"])
        third = Agent(client, "a1", register(client, token=second.token).get_json()["registry_token"])
        assert_error(first.post("/agents/heartbeat"), 401, "unauthorized")
        assert second.beat() == third.beat() == []

    @pytest.mark.parametrize("verb", ["heartbeat", "dequeue"])
    def test_an_agent_that_left_is_unknown_until_it_registers(self, client: FlaskClient, verb: str) -> None:
        agent = an_agent(client)
        agent.post("/agents/deregister")
        path = "/agents/heartbeat" if verb == "heartbeat" else "/tasks/dequeue"
        assert_error(agent.post(path), 404, "unknown", "register")
        assert register(client, token=agent.token).status_code == 200
        assert agent.post(path).status_code in (200, 204)


class TestOwnership:
    def test_who_had_a_task_cannot_see_it_once_another_has_it(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        waiting(fleet)
        first, second = an_agent(client), an_agent(client, "a2")
        old = first.take()
        first.say(old, "log", offset=0, data="b25l")
        tick(fleet, clock, 240)
        new = second.take()
        second.say(new, "log", offset=0, data="dHdv")
        where = "/tasks/acme%2Fwidgets%2312"
        for address in (where, f"{where}?events=false", f"{where}/log", f"{where}/log?run=2"):
            assert_error(first.get(address), 403, "forbidden")
        assert first.get("/tasks").get_json() == []
        assert first.get(f"{where}/log?run=1").get_json()["data"] == "b25l"
        assert second.get(f"{where}/log").get_json()["data"] == "dHdv"
        assert_error(second.get(f"{where}/log?run=1"), 403, "forbidden")
        for verb, body in (
            ("status", {"status": "failed"}),
            ("complete", {"status": "failed"}),
            ("log", {"offset": 3, "data": "eA=="}),
        ):
            for number in (1, 2):
                assert first.say(old, verb, **body | {"lease": number}).status_code in (403, 409)
        with fleet.engine.begin() as conn:
            assert tasks.find(conn, new["task_id"]).retry_count == 1

    def test_a_receipt_for_another_address_than_its_own_is_refused(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet, 1), waiting(fleet, 2)
        mine, other = an_agent(client), an_agent(client, "a2")
        task, theirs = mine.take(), other.take()
        told = {"status": "failed", "task_id": theirs["task_id"]}
        assert_error(mine.say(task, "complete", **told), 400, "invalid", "task_id")
        assert_error(mine.post("/receipts", **told), 403, "forbidden")

    def test_the_same_key_of_two_agents_is_two_keys(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet, 1), waiting(fleet, 2)
        took = [an_agent(client, name).dequeue("same").get_json()["task_id"] for name in ("a1", "a2")]
        assert len(set(took)) == 2

    def test_a_lease_that_never_was_is_refused(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        agent = an_agent(client)
        task = agent.take()
        assert_error(agent.say(task, "status", status="running", lease=2), 409, "stale")
        assert_error(agent.say(task, "status", status="running", lease=0), 400, "invalid", "lease")
        assert_error(agent.say(task, "log", lease=2, offset=0, data=""), 409, "stale")

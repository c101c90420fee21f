"""The contract of the agent API, row by row: names, statuses, shapes, who may call, and what belongs to whom."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.ports import Fleet
from app.services.agents import leases, registry
from app.services.runs import expiry
from app.store import tasks
from tests import servers
from tests.api.scene import tick, waiting
from tests.api.test_tasks import assert_error
from tests.builders import apply
from tests.conftest import FakeClock
from tests.pulling import BASE, ENROLL, Agent, an_agent, register
from tests.serving import Web, client_of, web_process

TASK = {
    "task_id", "source", "task_type", "priority", "status", "execution_mode", "assigned_agent_id", "assigned_host", "retry_count",
    "max_retries", "review_count", "labels", "required_capabilities", "requirements", "prompt", "repository", "issue", "branch_name",
    "pr_number", "pr_title", "pr_url", "reason", "created_at", "assigned_at", "started_at", "completed_at", "last_activity_at",
}  # fmt: skip
AGENT = {"agent_id", "agent_type", "hostname", "capabilities", "max_concurrency", "metadata"}
ADDRESSES = [
    ("POST", "/agents/register"), ("POST", "/agents/heartbeat"), ("POST", "/agents/deregister"), ("GET", "/agents"),
    ("POST", "/tasks/dequeue"), ("POST", "/tasks/x%231/status"), ("POST", "/tasks/x%231/log"), ("POST", "/tasks/x%231/complete"),
    ("POST", "/receipts"), ("GET", "/tasks"), ("GET", "/tasks/x%231"), ("POST", "/tasks"), ("POST", "/tasks/x%231/retry"),
    ("POST", "/tasks/x%231/cancel"), ("POST", "/tasks/x%231/assign"), ("GET", "/hosts"), ("POST", "/hosts/h/drain"),
    ("POST", "/hosts/h/resume"), ("POST", "/webhooks/forgejo"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/tasks/x%231/log"),
]  # fmt: skip


@pytest.fixture(scope="module")
def web(database: str) -> Iterator[Web]:
    """A real web process on an empty database."""
    name = servers.fresh_name()
    servers.create(name)
    try:
        with web_process(servers.url(name)) as web:
            yield web
    finally:
        servers.drop(name)


class TestNames:
    def test_a_task_has_the_contracts_names_wherever_it_is_shown(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        taken = agent.dequeue().get_json()
        assert set(taken) >= TASK | {"lease", "lease_expires_at", "confirm_by"}
        assert set(taken["prompt"]) >= {"goal", "constraints", "validation", "text"}
        reported = agent.say(taken, "status", status="running").get_json()
        assert set(reported) >= TASK | {"stop"}
        listed = client.get(f"{BASE}/tasks").get_json()[0]
        whole = client.get(f"{BASE}/tasks/acme/widgets%2312").get_json()
        assert set(listed) >= TASK
        assert set(whole) >= TASK | {"events", "runs"}
        assert (whole["task_id"], whole["source"], whole["task_type"]) == (task_id, f"forgejo:{task_id}", "python")

    def test_a_task_of_an_api_call_says_so(self, client: FlaskClient) -> None:
        made = client.post(f"{BASE}/tasks", json={"title": "Fix it", "requirements": "Now."}).get_json()
        told = {name: made[name] for name in ("source", "priority", "execution_mode", "max_retries", "status")}
        assert told == {
            "source": "api", "priority": "normal", "execution_mode": "undecided", "max_retries": 2, "status": "created",
        }  # fmt: skip
        assert made["task_id"].startswith("api#")

    def test_answers_to_agents_have_the_contracts_names(self, client: FlaskClient, fleet: Fleet) -> None:
        answer = register(client)
        assert set(answer.get_json()) == {
            "agent_id", "registry_token", "heartbeat_interval_secs", "offline_after_secs",
        }  # fmt: skip
        agent, task_id = Agent(client, "a1", answer.get_json()["registry_token"]), waiting(fleet)
        agent.take()
        pulse = agent.post("/agents/heartbeat", tasks=[{"task_id": task_id, "lease": 1}]).get_json()
        assert pulse["status"] == "online"
        assert set(pulse["tasks"][0]) == {"task_id", "lease", "status", "stop", "lease_expires_at"}
        assert set(client.get(f"{BASE}/agents").get_json()[0]) >= AGENT | {"status"}
        assert agent.post("/agents/deregister").get_json() == {"requeued": [task_id]}

    def test_several_tasks_come_in_tasks_also_when_there_is_one(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        assert set(an_agent(client).dequeue(max_tasks=2).get_json()) == {"tasks"}

    def test_moments_are_rfc_3339_in_utc(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        taken = an_agent(client).dequeue().get_json()
        assert all(
            taken[name].endswith("Z") for name in ("created_at", "assigned_at", "confirm_by", "last_activity_at")
        )


class TestAddresses:
    @pytest.mark.parametrize(("method", "path"), ADDRESSES)
    def test_none_is_open(self, fleet: Fleet, method: str, path: str) -> None:

        answer = client_of(fleet).open(f"{BASE}{path}", method=method, data=b"{")
        assert_error(answer, 401, "unauthorized")

    @pytest.mark.parametrize(("method", "path"), ADDRESSES)
    @pytest.mark.parametrize("other", ["PUT", "DELETE", "PATCH"])
    def test_another_method_is_refused_in_the_contracts_shape(
        self, client: FlaskClient, method: str, path: str, other: str
    ) -> None:
        answer = client.open(f"{BASE}{path}", method=other)
        assert_error(answer, 405, "invalid", "method")
        assert method in answer.headers["Allow"]

    @pytest.mark.parametrize(
        "path", ["/", "/api", "/api/v1", "/api/v1/nothing", "/api/v1/agents/register/x", "/etc/passwd"]
    )
    def test_one_that_is_not_there_is_404(self, client: FlaskClient, path: str) -> None:
        assert_error(client.get(path), 404, "unknown")

    def test_head_has_the_status_and_no_body(self, client: FlaskClient) -> None:
        for path, status in ((f"{BASE}/tasks", 200), (f"{BASE}/nothing", 404), ("/healthz", 200)):
            answer = client.head(path)
            assert (answer.status_code, answer.data) == (status, b"")

    def test_lists_page_to_the_end_with_the_filter_kept(self, client: FlaskClient, fleet: Fleet) -> None:
        for number in range(1, 6):
            waiting(fleet, number)
        address, seen = f"{BASE}/tasks?limit=2&status=created&repository=acme/widgets", []
        while address:
            page = client.get(address)
            assert page.headers["X-Total-Count"] == "5"
            seen += [task["issue"]["number"] for task in page.get_json()]
            link = page.headers.get("Link", "")
            assert not link or link.endswith('>; rel="next"')
            address = link.partition("<")[2].partition(">")[0]
        assert seen == [5, 4, 3, 2, 1]

    def test_a_page_after_a_task_that_is_not_there_is_refused(self, client: FlaskClient) -> None:
        assert_error(client.get(f"{BASE}/tasks?after=nope%231"), 400, "invalid", "after")


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


class TestAnAbsence:
    """After an outage of the control plane leases get a grace period."""

    def test_of_everything_costs_an_agent_nothing(self, client: FlaskClient, fleet: Fleet, clock: FakeClock) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        agent.take()
        expiry.pulse(fleet)
        expiry.rescue(fleet)
        clock.pass_(7200)
        expiry.rescue(fleet)  # whichever comes back first
        expiry.pulse(fleet)
        expiry.rescue(fleet)
        clock.pass_(100)
        expiry.pulse(fleet)
        expiry.rescue(fleet)
        assert [one["stop"] for one in agent.beat((task_id, 1))] == [False]

    def test_of_everything_costs_a_host_nothing(self, fleet: Fleet, clock: FakeClock) -> None:
        from app.services.dispatch import placement
        from app.services.runs import report
        from app.store import runs

        with fleet.engine.begin() as conn:
            apply(conn)
        task_id = waiting(fleet)
        placement.place_waiting(fleet)
        with fleet.engine.begin() as conn:
            run = runs.get(conn, tasks.find(conn, task_id).id, 1)
        assert run is not None
        report.started(fleet, run)
        expiry.rescue(fleet)
        clock.pass_(7200)
        expiry.rescue(fleet)
        tick(fleet, clock, 100)
        with fleet.engine.begin() as conn:
            assert tasks.find(conn, task_id).state == "running"

    def test_is_not_granted_twice_for_one_gap(self, client: FlaskClient, fleet: Fleet, clock: FakeClock) -> None:
        waiting(fleet)
        an_agent(client).take()
        expiry.pulse(fleet)
        clock.pass_(100)
        for _ in range(3):
            expiry.pulse(fleet)
        with fleet.engine.begin() as conn:
            run = leases.held(conn, 1, 1).run
        assert run.deadline and (run.deadline - clock()).total_seconds() == 180


class TestARealWebProcess:
    def test_lives_and_is_ready(self, web: Web) -> None:
        for path in ("/healthz", "/api/v1/healthz"):
            status, headers, body = web.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert (status, body, headers["content-type"].split(";")[0]) == (200, b"ok", "text/plain")
        assert web.call("GET", "/readyz") == (200, {"database": "ok", "broker": "ok"})

    @pytest.mark.parametrize(
        "write", [lambda id_: id_.replace("/", "%2F").replace("#", "%23"), lambda id_: id_.replace("#", "%23")]
    )
    def test_understands_an_id_with_its_slash_encoded_or_not_in_every_address(
        self, web: Web, make_fleet: Any, write: Any
    ) -> None:
        from datetime import UTC, datetime

        from sqlalchemy import create_engine

        from tests.builders import a_stored_task

        number, task_id = 42 + len(write("/")), f"owner/repo#{42 + len(write('/'))}"
        engine = create_engine(web.database)
        with engine.begin() as conn:
            a_stored_task(conn, task_id, at=datetime.now(UTC))
        engine.dispose()
        at, token = f"/tasks/{write(task_id)}", web.register(f"a{number}")
        named = {"agent_id": f"a{number}"}
        assert web.call("GET", at)[1]["task_id"] == task_id
        assert web.call("POST", "/tasks/dequeue", token, **named)[1]["task_id"] == task_id
        assert web.call("POST", f"{at}/status", token, **named, status="running")[1]["status"] == "running"
        assert web.call("POST", f"{at}/log", token, lease=1, offset=0, data="YQ==") == (200, {"next_offset": 1})
        assert web.call("GET", f"{at}/log", token)[1]["data"] == "YQ=="
        assert web.call("POST", f"{at}/complete", token, **named, status="failed")[0] == 200
        assert web.call("POST", f"{at}/cancel")[1]["status"] == "cancelled"
        assert web.call("POST", f"{at}/retry")[1]["status"] == "created"
        assert web.call("POST", f"{at}/assign", agent_id=f"a{number}")[1]["assigned_agent_id"] == f"a{number}"
        assert web.call("POST", f"{at}/cancel")[0] == 200

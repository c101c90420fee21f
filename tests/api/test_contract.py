"""The contract of the agent API: names, addresses, statuses and shapes."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.ports import Fleet
from tests import servers
from tests.agent_client import BASE, Agent, an_agent, register
from tests.api.agent_api_setup import waiting
from tests.api.test_tasks import assert_error
from tests.web_process import Web, client_of, web_process

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

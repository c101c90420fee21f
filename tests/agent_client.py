"""Plays an agent against the web application: HTTP calls with the names of the contract."""

from typing import Any
from urllib.parse import quote

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

BASE = "/api/v1"
ENROLL = "enroll-token-of-the-test"


class Agent:
    """An agent with a token. Each call sends what the test gives."""

    def __init__(self, client: FlaskClient, agent_id: str, token: str) -> None:
        self.client, self.agent_id, self.token = client, agent_id, token

    def post(self, path: str, **body: Any) -> TestResponse:
        """A call in the name of this agent, unless `agent_id` is given."""
        headers = body.pop("headers", {}) | {"Authorization": f"Bearer {self.token}"}
        return self.client.post(f"{BASE}{path}", json={"agent_id": self.agent_id, **body}, headers=headers)

    def get(self, path: str) -> TestResponse:
        return self.client.get(f"{BASE}{path}", headers={"Authorization": f"Bearer {self.token}"})

    def dequeue(self, key: str | None = None, **body: Any) -> TestResponse:
        return self.post("/tasks/dequeue", headers={"Idempotency-Key": key} if key else {}, **body)

    def beat(self, *held: tuple[str, int]) -> list[Any]:
        """Send a heartbeat that names the tasks `held`; return the answer's tasks."""
        named = {"tasks": [{"task_id": task_id, "lease": lease} for task_id, lease in held]} if held else {}
        answer = self.post("/agents/heartbeat", **named)
        assert answer.status_code == 200, answer.text
        return list(answer.get_json()["tasks"])

    def take(self) -> Any:
        """Dequeue a task and confirm it."""
        task = self.dequeue().get_json()
        assert self.say(task, "status", status="running").status_code == 200
        return task

    def say(self, task: Any, verb: str, **body: Any) -> TestResponse:
        """POST /tasks/{id}/<verb> with the task's lease."""
        return self.post(f"/tasks/{quote(task['task_id'], safe='')}/{verb}", **{"lease": task["lease"], **body})


def register(client: FlaskClient, agent_id: str = "a1", token: str = ENROLL, **given: Any) -> TestResponse:
    about = {"agent_type": "codex", "hostname": "h1", "capabilities": ["python"], **given}
    return client.post(
        f"{BASE}/agents/register",
        json={"agent_id": agent_id, **about},
        headers={"Authorization": f"Bearer {token}"},
    )


def an_agent(client: FlaskClient, agent_id: str = "a1", **given: Any) -> Agent:
    """A registered agent with the capability python and one slot."""
    answer = register(client, agent_id, **given)
    assert answer.status_code in (200, 201), answer.text
    return Agent(client, agent_id, answer.get_json()["registry_token"])

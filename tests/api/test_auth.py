"""Checks the permissions of agents, operators and viewers for each API call."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.domain.task import State
from app.ports import Fleet
from tests.agent_client import Agent, an_agent
from tests.api.agent_api_setup import state_of, waiting
from tests.api.test_tasks import assert_error

HEARTBEAT = {"tasks": [{"task_id": "x", "lease": 1}]}
CALLS_OF_AGENTS = [
    ("/agents/heartbeat", {}), ("/agents/deregister", {}), ("/tasks/dequeue", {}), ("/tasks/acme%2Fwidgets%2312/status", {"status": "running"}),
    ("/tasks/acme%2Fwidgets%2312/complete", {"status": "completed"}), ("/receipts", {"task_id": "acme/widgets#12", "status": "completed"}),
    ("/tasks/acme%2Fwidgets%2312/log", {"lease": 1, "offset": 0, "data": ""}),
]  # fmt: skip


class TestWhoMayCall:
    @pytest.mark.parametrize(("path", "body"), CALLS_OF_AGENTS)
    @pytest.mark.parametrize("token", ["", "wrong", "\xff"])
    def test_without_a_valid_token_every_call_is_refused(
        self, client: FlaskClient, fleet: Fleet, path: str, body: Any, token: str
    ) -> None:
        waiting(fleet)
        assert_error(Agent(client, "a1", token).post(path, **body), 401, "unauthorized")

    @pytest.mark.parametrize(("path", "body"), CALLS_OF_AGENTS)
    @pytest.mark.parametrize("token", ["operator-token-of-the-test", "viewer-token-of-the-test"])
    def test_operators_and_viewers_cannot_call_for_agents(
        self, client: FlaskClient, fleet: Fleet, path: str, body: Any, token: str
    ) -> None:
        waiting(fleet)
        an_agent(client)
        assert_error(Agent(client, "a1", token).post(path, **body), 403, "forbidden")

    @pytest.mark.parametrize(("path", "body"), CALLS_OF_AGENTS[:-1])
    def test_one_agent_cannot_call_as_another(self, client: FlaskClient, fleet: Fleet, path: str, body: Any) -> None:
        waiting(fleet)
        mallory = an_agent(client, "mallory")
        an_agent(client)
        assert_error(mallory.post(path, **body, agent_id="a1"), 403, "forbidden")
        assert_error(mallory.post(path, **body, agent_id="nobody"), 404, "unknown")

    @pytest.mark.parametrize(
        ("verb", "body"),
        [("status", {"status": "running"}), ("status", {"status": "failed"}), ("complete", {"status": "completed"}),
         ("log", {"offset": 0, "data": ""})],
    )  # fmt: skip
    @pytest.mark.parametrize("lease", [1, 2, None])
    def test_a_task_of_another_agent_can_neither_be_read_nor_changed(
        self, client: FlaskClient, fleet: Fleet, verb: str, body: Any, lease: int | None
    ) -> None:
        waiting(fleet)
        owner, mallory = an_agent(client), an_agent(client, "mallory")
        task = owner.take()
        told = {"lease": lease or 1} if verb == "log" else {"lease": lease}
        assert_error(mallory.say(task, verb, **told, **body), 403, "forbidden")
        for address in ("", "?events=false", "/log"):
            assert_error(mallory.get(f"/tasks/acme%2Fwidgets%2312{address}"), 403, "forbidden")
        assert mallory.get("/tasks?agent_id=a1").get_json() == []
        assert [one["task_id"] for one in owner.get("/tasks").get_json()] == ["acme/widgets#12"]
        assert state_of(fleet, task["task_id"]) is State.RUNNING

    @pytest.mark.parametrize("address", ["/agents", "/hosts"])
    def test_agents_see_neither_each_other_nor_hosts(self, client: FlaskClient, address: str) -> None:
        assert_error(an_agent(client).get(address), 403, "forbidden")

    def test_a_viewer_reads_and_changes_nothing(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        viewer = Agent(client, "v", "viewer-token-of-the-test")
        for address in ("/tasks", "/tasks/acme%2Fwidgets%2312", "/agents", "/hosts"):
            assert viewer.get(address).status_code == 200
        for address in (
            "/tasks",
            "/tasks/acme%2Fwidgets%2312/cancel",
            "/tasks/acme%2Fwidgets%2312/retry",
            "/hosts/x/drain",
        ):
            assert_error(viewer.post(address, title="x", requirements="y"), 403, "forbidden")

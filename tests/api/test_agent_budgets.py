"""Budgets are judged by the usage that an agent reports."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.ports import Fleet
from app.services.runs import expiry
from app.store import repositories, tasks
from app.store.usage import used
from tests.agent_client import BASE, Agent, an_agent
from tests.api.agent_api_setup import waiting
from tests.builders import a_repository, apply, declared
from tests.conftest import FakeClock


class TestBudgets:
    @pytest.fixture
    def agent(self, client: FlaskClient, fleet: Fleet) -> Agent:
        return an_agent(client)

    def capped(self, fleet: Fleet, **budget: Any) -> str:
        rule = declared()["repositories"][0] | {"budget": budget}
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[], repositories=[rule])
            repositories.save_repository(conn, "main", a_repository())
        return waiting(fleet)

    def uses(self, agent: Agent, task: Any, **usage: Any) -> Any:
        return agent.say(task, "status", status="running", progress={"usage": usage}).get_json()

    def test_are_judged_on_what_it_says_that_it_used_and_the_answer_is_to_stop(
        self, fleet: Fleet, agent: Agent
    ) -> None:
        task_id = self.capped(fleet, run={"tokens": 1000})
        task = agent.take()
        assert not self.uses(agent, task, input_tokens=900)["stop"]
        told = self.uses(agent, task, input_tokens=900, output_tokens=100)
        assert (told["stop"], told["status"], told["reason"]) == (True, "parked", "budget")
        assert agent.beat((task_id, 1)) == [
            {"task_id": task_id, "lease": 1, "status": "parked", "stop": True, "lease_expires_at": None}
        ]
        assert agent.say(task, "complete", status="failed", error="late").status_code == 409
        run = agent.client.get(f"{BASE}/tasks/{task_id.replace('#', '%23')}").get_json()["runs"][0]
        assert (run["usage"]["input_tokens"], run["usage"]["output_tokens"]) == (900, 100), "it counts for the day"

    def test_in_minutes_are_judged_when_it_beats(self, fleet: Fleet, agent: Agent, clock: FakeClock) -> None:
        task_id = self.capped(fleet, task={"minutes": 2})
        agent.take()
        clock.pass_(60)
        assert [one["stop"] for one in agent.beat((task_id, 1))] == [False]
        clock.pass_(60)
        (told,) = agent.beat()
        assert (told["task_id"], told["status"], told["stop"]) == (task_id, "parked", True), (
            "also when it names nothing"
        )

    def test_what_was_used_stands_while_it_says_nothing_of_it(self, fleet: Fleet, agent: Agent) -> None:
        self.capped(fleet, run={"dollars": 1.0}, day={"tokens": 10**9})
        task = agent.take()
        self.uses(agent, task, cost_usd=0.9)
        for told in ({}, {"progress": {"step": "validate"}}, {"progress": None}):
            agent.say(task, "status", status="running", **told)
        assert self.uses(agent, task, cost_usd=1.0)["stop"]
        with fleet.engine.begin() as conn:
            assert used(conn, tasks.find(conn, task["task_id"]), 0, fleet.clock())["task"].dollars == 1.0

    def test_that_are_used_up_already_let_nothing_begin(self, fleet: Fleet, agent: Agent, clock: FakeClock) -> None:
        self.capped(fleet, day={"tokens": 1000})
        assert self.uses(agent, agent.take(), input_tokens=1000)["stop"]
        waiting(fleet, 13)
        task = agent.dequeue().get_json()
        told = agent.say(task, "status", status="running").get_json()
        assert (told["stop"], told["status"], told["reason"]) == (True, "parked", "budget")
        clock.pass_(86400)
        expiry.expire_and_wake(fleet)
        assert not agent.say(agent.take(), "status", status="running").get_json()["stop"], "tomorrow it goes on"

    @pytest.mark.parametrize("told", ["many", {"input_tokens": "1"}, {"input_tokens": -5000}, {"input_tokens": 1e300}])
    def test_count_no_nonsense(self, fleet: Fleet, agent: Agent, told: Any) -> None:
        self.capped(fleet, task={"tokens": 1000})
        task = agent.take()
        assert not agent.say(task, "status", status="running", progress={"usage": told}).get_json()["stop"]
        assert self.uses(agent, task, input_tokens=1000)["stop"]

"""Leases of agents: confirmed, renewed by heartbeats, lost in silence, stopped and assigned."""

from datetime import timedelta

from flask.testing import FlaskClient

from app.domain.task import State
from app.ports import Fleet
from app.services.runs import expiry
from app.store import tasks
from tests.agent_client import BASE, an_agent
from tests.api.agent_api_setup import state_of, tick, waiting
from tests.api.test_tasks import assert_error
from tests.conftest import FakeClock


class TestLeases:
    def test_one_that_is_not_confirmed_goes_back_and_the_attempt_does_not_count(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        task = agent.dequeue().get_json()
        agent.beat((task_id, 1))
        tick(fleet, clock, 40)
        with fleet.engine.begin() as conn:
            back = tasks.find(conn, task_id)
        assert (back.state, back.ready, back.retry_count) == (State.CREATED, True, 0)
        assert_error(agent.say(task, "status", status="running"), 409, "stale")

    def test_beating_keeps_what_is_worked_on(self, client: FlaskClient, fleet: Fleet, clock: FakeClock) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        agent.take()
        for _ in range(10):
            tick(fleet, clock, 60)
            answers = agent.beat((task_id, 1))
        assert answers[0]["stop"] is False
        assert answers[0]["lease_expires_at"] == (clock() + timedelta(seconds=180)).isoformat().replace("+00:00", "Z")
        assert state_of(fleet, task_id) is State.RUNNING

    def test_a_task_it_does_not_name_is_not_kept_for_it(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        waiting(fleet, 1), waiting(fleet, 2)
        agent = an_agent(client, max_concurrency=2)
        agent.take(), agent.take()
        for _ in range(4):
            agent.beat(("acme/widgets#1", 1))
            tick(fleet, clock, 60)
        assert [state_of(fleet, f"acme/widgets#{n}") for n in (1, 2)] == [State.RUNNING, State.CREATED]

    def test_silence_loses_the_task_and_the_late_report_is_refused(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        task = agent.take()
        tick(fleet, clock, 240)
        assert state_of(fleet, task_id) is State.CREATED
        other = an_agent(client, "a2")
        assert other.take()["lease"] == 2
        for verb, body in (
            ("status", {"status": "running"}),
            ("complete", {"status": "completed"}),
            ("log", {"offset": 0, "data": ""}),
        ):
            assert_error(agent.say(task, verb, **body), 409, "stale")
        assert agent.beat((task_id, 1))[0]["stop"] is True
        assert state_of(fleet, task_id) is State.RUNNING

    def test_a_cancelled_task_is_told_to_stop_in_the_next_answer(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        task = agent.take()
        assert client.post(f"{BASE}/tasks/acme%2Fwidgets%2312/cancel").status_code == 200
        assert agent.say(task, "status", status="running").get_json()["stop"] is True
        assert [(one["task_id"], one["status"], one["stop"]) for one in agent.beat()] == [(task_id, "cancelled", True)]
        assert agent.beat() == []
        assert [(one["status"], one["stop"]) for one in agent.beat((task_id, 1))] == [("cancelled", True)]

    def test_what_is_not_its_own_it_shall_leave_alone(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        an_agent(client).take()
        answers = an_agent(client, "a2").beat(("acme/widgets#12", 1), ("no such#1", 7))
        assert [(one["status"], one["stop"]) for one in answers] == [(None, True)] * 2

    def test_when_no_web_process_could_hear_it_silence_says_nothing(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        agent.take()
        expiry.record_web_alive(fleet)
        tick(fleet, clock, 600)
        assert state_of(fleet, task_id) is State.RUNNING
        expiry.record_web_alive(fleet)
        expiry.expire_and_wake(fleet)
        assert state_of(fleet, task_id) is State.RUNNING
        assert agent.beat((task_id, 1))[0]["stop"] is False

    def test_an_operator_gives_a_task_to_an_agent_and_it_hears_of_it(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id, agent = waiting(fleet, needs=("python",)), an_agent(client)
        address = f"{BASE}/tasks/acme%2Fwidgets%2312/assign"
        assert_error(client.post(address, json={"agent_id": "nobody"}), 404, "unknown")
        assert_error(client.post(address, json={}), 400, "invalid")
        given = client.post(address, json={"agent_id": "a1"}).get_json()
        assert (given["status"], given["assigned_agent_id"], given["execution_mode"]) == ("assigned", "a1", "http_pull")
        assert [(one["task_id"], one["lease"]) for one in agent.beat()] == [(task_id, 1)]
        assert agent.dequeue().get_json()["lease"] == 1
        assert agent.dequeue().status_code == 204
        assert_error(client.post(address, json={"agent_id": "a1"}), 400, "invalid")

    def test_an_operator_cannot_give_it_what_it_cannot_do(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet, needs=("gpu",))
        an_agent(client)
        address = f"{BASE}/tasks/acme%2Fwidgets%2312/assign"
        assert_error(client.post(address, json={"agent_id": "a1"}), 400, "invalid", "gpu")
        assert_error(client.post(address, json={"agent_id": "a1", "execution_mode": "ssh_cli"}), 400, "invalid")

"""Agents dequeue tasks that they can do, by priority, within their slots, and once per key."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from app.domain.task import Mode
from app.ports import Fleet
from app.services.dispatch import placement
from app.services.replay import differences
from app.store import tasks
from app.store.tables import runs
from tests.agent_client import an_agent
from tests.api.agent_api_setup import waiting
from tests.api.test_tasks import assert_error
from tests.builders import a_host, apply


class TestDequeue:
    def test_the_task_comes_with_its_lease_and_all_that_is_needed(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id = waiting(fleet)
        task = an_agent(client).dequeue().get_json()
        assert (task["task_id"], task["status"], task["execution_mode"]) == (task_id, "assigned", "http_pull")
        assert (task["lease"], task["assigned_agent_id"]) == (1, "a1")
        assert task["confirm_by"] == task["lease_expires_at"] == "2026-11-24T03:00:30Z"
        assert task["prompt"]["text"] == "# Fix the total\n"
        assert task["commit"]["message"].startswith("Fix the total")
        assert task["checks"] == []

    def test_nothing_to_do_is_204_without_a_body(self, client: FlaskClient) -> None:
        answer = an_agent(client).dequeue()
        assert (answer.status_code, answer.data) == (204, b"")

    def test_highest_priority_first_then_oldest(self, client: FlaskClient, fleet: Fleet) -> None:
        for number, priority in enumerate((1, 0, 3, 1, 3), start=1):
            waiting(fleet, number, priority=priority)
        agent = an_agent(client, max_concurrency=9)
        took = [agent.dequeue().get_json()["issue"]["number"] for _ in range(5)]
        assert took == [3, 5, 1, 4, 2]

    @pytest.mark.parametrize("needs", [(), ("python",), ("python", "gpu")])
    def test_what_it_cannot_do_it_does_not_get(self, client: FlaskClient, fleet: Fleet, needs: tuple[str, ...]) -> None:
        waiting(fleet, needs=(*needs, "cobol"))
        wanted = waiting(fleet, 13, needs=needs)
        answer = an_agent(client, capabilities=["python", "agent:GPU"]).dequeue()
        assert answer.get_json()["task_id"] == wanted

    def test_work_for_hosts_is_not_for_agents(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet, mode=Mode.SSH_CLI)
        assert an_agent(client).dequeue().status_code == 204

    def test_never_more_than_its_slots(self, client: FlaskClient, fleet: Fleet) -> None:
        for number in range(1, 6):
            waiting(fleet, number)
        agent = an_agent(client, max_concurrency=2)
        assert len(agent.dequeue(max_tasks=50).get_json()["tasks"]) == 2
        assert agent.dequeue().status_code == 204

    def test_it_may_ask_with_a_part_of_what_it_can_do(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet, 1, needs=("python",)), waiting(fleet, 2, needs=("gpu",))
        agent = an_agent(client, capabilities=["python", "gpu"])
        assert agent.dequeue(capabilities=["agent:gpu"]).get_json()["task_id"] == "acme/widgets#2"
        assert_error(agent.dequeue(capabilities=["cobol"]), 400, "invalid", "capabilities", "cobol")

    @pytest.mark.parametrize("most", [1, 2])
    def test_a_key_repeats_the_answer(self, client: FlaskClient, fleet: Fleet, most: int) -> None:
        for number in range(1, 6):
            waiting(fleet, number)
        agent = an_agent(client, max_concurrency=4)
        first, again, other = (agent.dequeue(key, max_tasks=most) for key in ("k", "k", "l"))
        assert first.get_json() == again.get_json() != other.get_json()
        another = an_agent(client, "a2")
        assert another.dequeue("k").get_json()["task_id"] not in first.text

    def test_a_key_that_got_nothing_asks_again(self, client: FlaskClient, fleet: Fleet) -> None:
        agent = an_agent(client)
        assert agent.dequeue("k").status_code == 204
        waiting(fleet)
        assert agent.dequeue("k").status_code == 200

    def test_a_task_wanted_by_hosts_and_agents_goes_to_exactly_one(self, client: FlaskClient, fleet: Fleet) -> None:
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host(slots=20)])
        for number in range(1, 21):
            waiting(fleet, number)
        crowd = [an_agent(client, f"a{n}", max_concurrency=20) for n in range(4)]
        with ThreadPoolExecutor(5) as pool:
            placed = pool.submit(placement.place_waiting, fleet)
            took = list(pool.map(lambda agent: [agent.dequeue().get_json(silent=True) for _ in range(8)], crowd))
        got = [task["task_id"] for tasks_ in took for task in tasks_ if task]
        assert len(got) == len(set(got)) == 20 - placed.result()
        with fleet.engine.begin() as conn:
            assert conn.execute(sa.select(sa.func.count()).select_from(runs)).scalar() == 20
            modes = [task.mode for task in tasks.all_tasks(conn)]
            assert modes.count(Mode.HTTP_PULL) == len(got)
            assert differences(fleet) == (20, [])

    def test_one_agent_asking_many_times_at_once_stays_within_its_slots(
        self, client: FlaskClient, fleet: Fleet
    ) -> None:
        for number in range(1, 21):
            waiting(fleet, number)
        agent = an_agent(client, max_concurrency=3)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: agent.dequeue().status_code, range(16)))
        assert sorted(answers) == [200] * 3 + [204] * 13

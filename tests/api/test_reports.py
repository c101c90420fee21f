"""Agents report progress, logs and failures; reviews and used-up budgets come back in the answers."""

from datetime import timedelta
from typing import Any

from flask.testing import FlaskClient

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import Mode, State
from app.ports import Fleet
from app.store import tasks
from tests.agent_client import an_agent
from tests.api.agent_api_setup import state_of, tick, waiting
from tests.api.test_tasks import assert_error
from tests.conftest import FakeClock


class TestReports:
    def test_progress_is_kept_and_shown(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        agent = an_agent(client)
        task = agent.take()
        agent.say(task, "status", status="running", message="Half way", progress={"percent": 50})
        run = agent.get("/tasks/acme%2Fwidgets%2312").get_json()["runs"][0]
        assert (run["message"], run["progress"]) == ("Half way", {"percent": 50})

    def test_a_report_without_a_lease_is_about_the_newest_run(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        task = agent.dequeue().get_json()
        assert agent.say(task, "status", status="running", lease=None).get_json()["status"] == "running"
        assert state_of(fleet, task_id) is State.RUNNING

    def test_an_agent_that_gives_up_has_spent_an_attempt(self, client: FlaskClient, fleet: Fleet) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        task = agent.take()
        for _ in range(2):
            answer = agent.say(task, "status", status="failed", message="No disk")
            assert answer.status_code == 200
        with fleet.engine.begin() as conn:
            after = tasks.find(conn, task_id)
        assert (after.state, after.retry_count, after.reason) == (State.CREATED, 1, "agent_failed")

    def test_a_task_of_hosts_is_the_wrong_mode(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet, mode=Mode.SSH_CLI)
        task = {"task_id": "acme/widgets#12", "lease": 1}
        assert_error(an_agent(client).say(task, "status", status="running"), 400, "invalid", "ssh_cli")

    def test_the_log_has_no_gap_and_no_repeat(self, client: FlaskClient, fleet: Fleet) -> None:
        waiting(fleet)
        agent = an_agent(client)
        task = agent.take()

        def send(offset: int, data: str) -> Any:
            return agent.say(task, "log", offset=offset, data=data)

        assert send(0, "YWJj").get_json() == {"next_offset": 3}
        assert send(1, "YmNkZQ==").get_json() == {"next_offset": 5}
        gap = send(9, "eA==")
        assert (gap.status_code, gap.get_json()["code"], gap.get_json()["next_offset"]) == (409, "stale", 5)
        assert_error(send(5, "not base64!"), 400, "invalid", "data")
        read = agent.get("/tasks/acme%2Fwidgets%2312/log?offset=1").get_json()
        assert (read["data"], read["next_offset"]) == ("YmNkZQ==", 5)


class TestReviewRounds:
    def test_changes_that_were_asked_for_ride_on_the_next_answer(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        agent.take()
        with fleet.engine.begin() as conn:
            task = tasks.find(conn, task_id)
            pull = {"number": 7, "title": "t", "url": "u", "head": "h"}
            tasks.record(conn, task.id, Fact(FactKind.PULL_OPENED, pull, run=1), clock())
            asked = {"review": 1, "by": "reviewer", "text": "Cover the empty list.", "comments": [["total.py", 3, "Why?"]],
                     "until": (clock() + timedelta(seconds=180)).isoformat()}  # fmt: skip
            tasks.record(conn, task.id, Fact(FactKind.CHANGES_REQUESTED, asked, key="review 1"), clock())
        news = {one["lease"]: one for one in agent.beat((task_id, 1))}
        assert news[1]["stop"] is True
        assert (news[2]["status"], news[2]["stop"]) == ("running", False)
        feedback = news[2]["feedback"]
        assert (feedback["by"], feedback["comments"]) == ("reviewer", [{"path": "total.py", "line": 3, "text": "Why?"}])
        assert "Cover the empty list." in feedback["prompt"]
        told = agent.say({"task_id": task_id, "lease": 2}, "status", status="running").get_json()
        assert (told["stop"], told["feedback"]) == (False, feedback)
        for _ in range(5):
            tick(fleet, clock, 60)
            assert agent.beat((task_id, 2))[0]["stop"] is False
        assert state_of(fleet, task_id) is State.RUNNING

    def test_an_agent_that_never_takes_it_up_loses_it_with_the_review_kept(
        self, client: FlaskClient, fleet: Fleet, clock: FakeClock
    ) -> None:
        self.test_changes_that_were_asked_for_ride_on_the_next_answer(client, fleet, clock)
        tick(fleet, clock, 240)
        task = an_agent(client, "a2").take()
        assert "Cover the empty list." in task["prompt"]["text"]
        assert "# Fix the total" in task["prompt"]["text"]

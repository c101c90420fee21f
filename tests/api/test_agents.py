"""Agents over HTTP: they come in by token, take what they can do, renew it, lose it, and are told what changed."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import Mode, State
from app.ports import Fleet
from app.services.agents import registry
from app.services.dispatch import placement
from app.services.replay import differences
from app.services.runs import expiry
from app.store import repositories, tasks
from app.store.tables import agents, runs
from app.store.usage import used
from tests.api.test_tasks import assert_error
from tests.builders import a_host, a_repository, a_stored_task, apply, declared
from tests.conftest import FakeClock
from tests.pulling import BASE, ENROLL, Agent, an_agent, register

HELD = {"tasks": [{"task_id": "x", "lease": 1}]}
DOORS = [
    ("/agents/heartbeat", {}), ("/agents/deregister", {}), ("/tasks/dequeue", {}), ("/tasks/acme%2Fwidgets%2312/status", {"status": "running"}),
    ("/tasks/acme%2Fwidgets%2312/complete", {"status": "completed"}), ("/receipts", {"task_id": "acme/widgets#12", "status": "completed"}),
    ("/tasks/acme%2Fwidgets%2312/log", {"lease": 1, "offset": 0, "data": ""}),
]  # fmt: skip


def waiting(fleet: Fleet, number: int = 12, **given: Any) -> str:
    with fleet.engine.begin() as conn:
        return a_stored_task(conn, f"acme/widgets#{number}", at=fleet.clock(), **given).task_id


def state_of(fleet: Fleet, task_id: str) -> State:
    with fleet.engine.begin() as conn:
        return tasks.find(conn, task_id).state


def tick(fleet: Fleet, clock: FakeClock, seconds: float) -> None:
    """Time passes while the control plane looks."""
    for _ in range(int(seconds // 10)):
        clock.pass_(10)
        expiry.rescue(fleet)


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
        week, ever = registry.invite(fleet, "lab", 7), registry.invite(fleet, "office", None)
        assert register(client, "a1", week).status_code == register(client, "a2", ever).status_code == 201
        clock.pass_(timedelta(days=8).total_seconds())
        assert_error(register(client, "a3", week), 401, "unauthorized")
        registry.withdraw(fleet, "office")
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
            assert [(t.state, t.ready, t.retry_count) for t in tasks.everything(conn)] == [(State.CREATED, True, 0)] * 2
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


class TestWhoMayCall:
    @pytest.mark.parametrize(("path", "body"), DOORS)
    @pytest.mark.parametrize("token", ["", "wrong", "\xff"])
    def test_without_a_token_every_door_is_shut(
        self, client: FlaskClient, fleet: Fleet, path: str, body: Any, token: str
    ) -> None:
        waiting(fleet)
        assert_error(Agent(client, "a1", token).post(path, **body), 401, "unauthorized")

    @pytest.mark.parametrize(("path", "body"), DOORS)
    @pytest.mark.parametrize("token", ["operator-token-of-the-test", "viewer-token-of-the-test"])
    def test_people_cannot_speak_for_agents(
        self, client: FlaskClient, fleet: Fleet, path: str, body: Any, token: str
    ) -> None:
        waiting(fleet)
        an_agent(client)
        assert_error(Agent(client, "a1", token).post(path, **body), 403, "forbidden")

    @pytest.mark.parametrize(("path", "body"), DOORS[:-1])
    def test_one_agent_cannot_speak_as_another(self, client: FlaskClient, fleet: Fleet, path: str, body: Any) -> None:
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
    def test_what_another_holds_can_neither_be_read_nor_changed(
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

    def test_a_viewer_looks_and_changes_nothing(self, client: FlaskClient, fleet: Fleet) -> None:
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
            modes = [task.mode for task in tasks.everything(conn)]
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
        expiry.pulse(fleet)
        tick(fleet, clock, 600)
        assert state_of(fleet, task_id) is State.RUNNING
        expiry.pulse(fleet)
        expiry.rescue(fleet)
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
        expiry.rescue(fleet)
        assert not agent.say(agent.take(), "status", status="running").get_json()["stop"], "tomorrow it goes on"

    @pytest.mark.parametrize("told", ["many", {"input_tokens": "1"}, {"input_tokens": -5000}, {"input_tokens": 1e300}])
    def test_count_no_nonsense(self, fleet: Fleet, agent: Agent, told: Any) -> None:
        self.capped(fleet, task={"tokens": 1000})
        task = agent.take()
        assert not agent.say(task, "status", status="running", progress={"usage": told}).get_json()["stop"]
        assert self.uses(agent, task, input_tokens=1000)["stop"]


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

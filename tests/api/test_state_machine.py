"""Calls the API as agents, hosts, operators and the clock in any order, and compares the server with a small model.

No state is illegal, no task is lost, and the events add up to the rows.
"""

import os
from typing import Any
from urllib.parse import quote

from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.domain.run import Outcome, Verdict
from app.ports import Fleet
from app.services.agents import registry
from app.services.dispatch import placement
from app.services.replay import differences
from app.services.runs import expiry, report
from app.store import runs
from app.store import tasks as rows
from tests import builders
from tests.agent_client import BASE, ENROLL, Agent, register
from tests.api.model import CONFIRM, RESET, SILENCE, Task, Work
from tests.api.state_machine_setup import (
    CAN,
    HOST,
    HOST_CAN,
    HOST_SLOTS,
    NEEDS,
    RECEIPTS,
    SLOTS,
    WHICH,
    WHO,
    ServerBesideModel,
)
from tests.builders import a_host, a_plain_task, apply
from tests.conftest import FakeClock

BOUNDED = settings(
    max_examples=int(os.environ.get("FLEET_MACHINE_EXAMPLES", "10")), stateful_step_count=30, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


class Machine(ServerBesideModel):
    """The calls of agents, operators, hosts and the clock, and what must hold after each."""

    # --- the players

    @initialize()
    def begin(self) -> None:
        for name in CAN:
            self.comes(name)
        for number in range(4):
            self.asks_for(number, "undecided", number % 3)

    @rule(who=WHO)
    def comes(self, who: str) -> None:
        answer = register(self.client, who, ENROLL, capabilities=sorted(CAN[who]), max_concurrency=SLOTS[who])
        if who in self.revoked:
            assert answer.status_code == 403
            return
        assert answer.status_code in (200, 201)
        self.gone.discard(who)
        self.agents[who] = Agent(self.client, who, answer.get_json()["registry_token"])

    @rule(
        needs=st.integers(0, len(NEEDS) - 1),
        mode=st.sampled_from(["undecided", "http_pull", "ssh_cli"]),
        priority=st.integers(0, 3),
    )
    def asks_for(self, needs: int, mode: str, priority: int) -> None:
        with self.fleet.engine.begin() as conn:
            requirement_set = rows.requirement_set(conn, NEEDS[needs])
            made = a_plain_task(
                conn, self.clock(), mode=mode, priority=priority, requirement_set_id=requirement_set, max_retries=2
            )
        self.model.tasks[made.task_id] = Task(made.id, frozenset(NEEDS[needs]), mode, priority)

    @rule(who=WHO, most=st.integers(1, 3), key=st.sampled_from([None, None, "k1", "k2"]))
    def dequeues(self, who: str, most: int, key: str | None) -> None:
        answer = self.as_(who).dequeue(key, max_tasks=most)
        if self.is_out(who, answer):
            return
        told = answer.get_json() if answer.status_code == 200 else {"tasks": []}
        got = [(task["task_id"], task["lease"]) for task in told.get("tasks", [told])]
        if key and (who, key) in self.given:
            assert got == self.given[who, key][:most] if most == 1 else got == self.given[who, key]
            return
        expected = self.expected(who, most)
        assert [id_ for id_, _ in got] == expected, (who, most)
        for id_, lease in got:
            if (id_, lease) in self.model.open:
                self.model.open[id_, lease].is_known = True
            else:
                self.model.take(id_, Work(who, self.clock() + CONFIRM))
        if key and got:
            self.given[who, key] = got

    def expected(self, who: str, most: int) -> list[str]:
        unknown = self.model.unknown_to(who)
        if unknown:
            return [id_ for id_, _ in unknown[:most]]
        free = SLOTS[who] - len(self.model.held_by(who))
        return self.model.queue(CAN[who])[: min(most, max(0, free))]

    @rule(who=WHO)
    def beats(self, who: str) -> None:
        held = self.model.held_by(who)
        answer = self.as_(who).post("/agents/heartbeat", tasks=[{"task_id": id_, "lease": run} for id_, run in held])
        if self.is_out(who, answer):
            return
        stops = {(news["task_id"], news["lease"]): news["stop"] for news in answer.get_json()["tasks"]}
        assert stops == {one: not self.model.is_current(*one) for one in held}
        self.model.beat(who, self.clock())

    @rule(who=WHO, which=WHICH, lease=st.sampled_from(["right", "none", "old", "next"]))
    def confirms(self, who: str, which: int, lease: str) -> None:
        self.says(who, which, lease, "status", status="running")

    @rule(
        who=WHO,
        which=WHICH,
        how=st.sampled_from(sorted(RECEIPTS)),
        lease=st.sampled_from(["right", "right", "none", "old"]),
    )
    def completes(self, who: str, which: int, how: str, lease: str) -> None:
        told = dict(RECEIPTS[how])
        if how == "limit":
            told["resets_at"] = (self.clock() + RESET).isoformat()
        self.says(who, which, lease, "complete", how, **told)

    @rule(who=WHO, which=WHICH, lease=st.sampled_from(["right", "old", "next"]))
    def logs(self, who: str, which: int, lease: str) -> None:
        self.says(who, which, lease, "log", offset=0, data="YQ==")

    def says(self, who: str, which: int, lease: str, verb: str, how: str = "", **body: Any) -> None:
        """Reports of the newest run count; all others are refused and change nothing."""
        id_ = self.task(which)
        task = self.model.tasks[id_]
        number = {"right": task.run, "none": None, "old": task.run - 1, "next": task.run + 1}[lease]
        if number is not None and number < 1:
            number = 1
        answer = self.as_(who).post(
            f"/tasks/{quote(id_, safe='')}/{verb}", **body, **({"lease": number} if number else {})
        )
        if self.is_out(who, answer):
            return
        work = self.model.open.get((id_, task.run))
        if number not in (None, task.run) or work is None or work.who != who:
            assert answer.status_code in (200, 400, 403, 409), answer.text
            if (
                answer.status_code == 200
            ):  # the newest run, its own, which has ended: the same words, or news that it is over
                assert number in (None, task.run)
                assert self.model.over.get((id_, task.run)) == who
            return
        assert answer.status_code == 200, answer.text
        if verb == "status":
            self.model.alive(id_, task.run, self.clock())
        elif verb == "complete":
            self.model.end(id_, task.run, how, self.clock())

    @rule(who=WHO)
    def leaves(self, who: str) -> None:
        answer = self.as_(who).post("/agents/deregister")
        if answer.status_code == 401:
            assert who in self.revoked or self.void(who)
            return
        assert sorted(answer.get_json()["requeued"]) == sorted(self.model.give_back(who))
        self.gone.add(who)

    @rule(who=WHO)
    def is_revoked(self, who: str) -> None:
        assert sorted(registry.revoke(self.fleet, who)) == sorted(self.model.give_back(who))
        self.revoked.add(who)

    @rule(who=WHO)
    def is_let_in_again(self, who: str) -> None:
        registry.restore(self.fleet, who)
        self.revoked.discard(who)

    # --- operators, hosts, the clock

    @rule(which=WHICH)
    def cancels(self, which: int) -> None:
        id_ = self.task(which)
        answer = self.client.post(f"{BASE}/tasks/{quote(id_, safe='')}/cancel")
        assert answer.status_code == (200 if self.model.cancel(id_) else 400)

    @rule(which=WHICH)
    def retries(self, which: int) -> None:
        id_ = self.task(which)
        answer = self.client.post(f"{BASE}/tasks/{quote(id_, safe='')}/retry")
        assert answer.status_code == (200 if self.model.retry(id_) else 400)

    @rule(which=WHICH, who=WHO)
    def assigns(self, which: int, who: str) -> None:
        id_ = self.task(which)
        task = self.model.tasks[id_]
        there = who not in self.revoked and who not in self.gone and not self.void(who)
        room = len(self.model.held_by(who)) < SLOTS[who]
        answer = self.client.post(f"{BASE}/tasks/{quote(id_, safe='')}/assign", json={"agent_id": who})
        if not there:
            assert answer.status_code == 404
        elif task.needs <= CAN[who] and room and task.state == "created":
            assert answer.status_code == 200, answer.text
            self.model.take(id_, Work(who, self.clock() + SILENCE, is_known=False))
        else:
            assert answer.status_code == 400

    @rule()
    def places(self) -> None:
        placement.place_waiting(self.fleet)
        for id_, task in self.model.tasks.items():
            row = self.row(id_)
            if row["state"] == "assigned" and row["host_id"] and task.state == "created":
                assert task.ready
                assert task.mode != "http_pull"
                assert task.needs <= HOST_CAN
                self.model.take(id_, Work(HOST, self.clock() + CONFIRM, on_host=True))
        assert len(self.model.held_by(HOST)) <= HOST_SLOTS

    @rule(how=st.sampled_from(["started", "completed", "failed"]))
    @precondition(lambda self: self.model.held_by(HOST))
    def host_tells(self, how: str) -> None:
        id_, number = self.model.held_by(HOST)[0]
        with self.fleet.engine.begin() as conn:
            run: Any = runs.get(conn, self.model.tasks[id_].key, number)
        if how == "started":
            report.started(self.fleet, run)
            return self.model.alive(id_, number, self.clock())
        done = how == "completed"
        result = {"end": "finished" if done else "failed", "step": "agent", "reason": None if done else "exit code 1"}
        report.ended(self.fleet, run, result, Outcome(Verdict.SUCCEEDED if done else Verdict.FAILED))
        self.model.end(id_, number, how, self.clock())

    @rule(seconds=st.sampled_from([1, 10, 31, 100, 181]))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_(seconds)

    @rule()
    def is_checked_by_the_clock(self) -> None:
        expiry.expire_and_wake(self.fleet)
        self.model.check_time(self.clock())

    # --- what must be so

    @invariant()
    def each_task_is_as_the_model_says(self) -> None:
        for id_, task in self.model.tasks.items():
            row = self.row(id_)
            here = (row["state"], row["ready"], row["run"], row["mode"], row["retry_count"], row["due_at"])
            assert here == (task.state, task.ready, task.run, task.mode, task.retries, task.due), id_

    @invariant()
    def nobody_holds_more_than_its_slots(self) -> None:
        with self.fleet.engine.begin() as conn:
            for who, slots in SLOTS.items():
                held = {(run.name) for run in runs.open_of_agent(conn, who)}
                assert len(held) == len(self.model.held_by(who)) <= slots

    def teardown(self) -> None:
        """No task is lost: with time and an agent that can do everything, each one ends."""
        if not self.model.tasks:
            return
        with self.fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host(HOST, 50, ("python", "gpu", "rust"))])
        answer = register(self.client, "last", ENROLL, capabilities=["python", "gpu", "rust"], max_concurrency=50)
        last = Agent(self.client, "last", answer.get_json()["registry_token"])
        for _ in range(20):
            self.clock.pass_(700)
            expiry.expire_and_wake(self.fleet)
            placement.place_waiting(self.fleet)
            self._hosts_finish()
            for task in (last.dequeue(max_tasks=50).get_json(silent=True) or {"tasks": []})["tasks"]:
                assert last.say(task, "complete", **RECEIPTS["completed"]).status_code == 200
        ends = {self.row(id_)["state"] for id_ in self.model.tasks}
        assert ends <= {"completed", "failed", "cancelled"}
        count, lines = differences(self.fleet)
        assert (count, lines) == (len(self.model.tasks), [])

    def _hosts_finish(self) -> None:
        with self.fleet.engine.begin() as conn:
            open_ = builders.open_on_hosts(conn)
        for run in open_:
            report.ended(self.fleet, run, {"end": "finished", "step": "deliver"}, Outcome(Verdict.SUCCEEDED))


def test_the_server_does_what_the_model_says(client: FlaskClient, fleet: Fleet, clock: FakeClock) -> None:
    parts = {"client": client, "fleet": fleet, "clock": clock}
    run_state_machine_as_test(type("Here", (Machine,), parts), settings=BOUNDED)

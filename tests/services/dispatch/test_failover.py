"""Another CLI replaces one whose credential is closed; sessions are resumed on the host and by the CLI that has them."""

from datetime import timedelta
from typing import Any

from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Outcome, Verdict
from app.domain.task import State, Task
from app.ports import Fleet
from app.services.dispatch import placement, start_order
from app.services.runs import expiry
from app.store import tasks, views
from tests.builders import a_host, a_stored_task, an_outbox_entry, apply
from tests.conftest import FakeClock
from tests.services.dispatch.limited_runs import LIMITED, RESET, a_cli, a_limit, begin, ends, newest
from workers.runs.start_request import start_request


class TestAFailover:
    SLOTS = [{"agent_type": name, "max_concurrency": 4, "capabilities": ["python"]} for name in ("one", "two")]  # noqa: RUF012

    def test_takes_over_at_once_and_ends_where_all_are_limited(self, fleet: Fleet, clock: FakeClock) -> None:
        clis = {"one": a_cli(failover=["two"]), "two": a_cli(failover=["one"])}
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host(agents=self.SLOTS)], clis=clis)
            task = a_stored_task(conn, requirement_set_id=tasks.requirement_set(conn, ("python",), "one"))
        kinds = []
        for _ in range(2):
            assert placement.place_waiting(fleet) == 1
            kinds.append(newest(fleet, task)[1].agent_type)
            parked = ends(fleet, task, LIMITED, a_limit(fleet))
            clock.pass_(1)
            expiry.expire_and_wake(fleet)
        assert kinds == ["one", "two"]
        assert parked.due_at and parked.due_at > clock() + timedelta(hours=1)
        assert placement.place_waiting(fleet) == 0

    def test_is_no_choice_while_the_wanted_one_is_open(self, fleet: Fleet) -> None:
        clis = {"one": a_cli(failover=["two"])}
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host(agents=[self.SLOTS[0] | {"max_concurrency": 1}, self.SLOTS[1]])], clis=clis)
            for number in range(3):
                a_stored_task(
                    conn,
                    f"acme/widgets#{number + 1}",
                    requirement_set_id=tasks.requirement_set(conn, ("python",), "one"),
                )
        assert placement.place_waiting(fleet) == 1

    def test_gets_no_session_of_the_one_that_it_takes_over_for_but_hears_what_that_did(
        self, fleet: Fleet, clock: FakeClock
    ) -> None:
        clis = {name: a_cli(resume=["x", "--resume", "{session_id}"], failover=[other])
                for name, other in (("one", "two"), ("two", "one"))}  # fmt: skip
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host(agents=self.SLOTS)], clis=clis)
            task = a_stored_task(conn, requirement_set_id=tasks.requirement_set(conn, ("python",), "one"))

        def order() -> start_order.Order:
            expiry.expire_and_wake(fleet)
            placement.place_waiting(fleet)
            found = start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=newest(fleet, task)[0].run))
            assert found
            return found

        def meets_a_limit(session: str, **given: Any) -> None:
            limit = Outcome(Verdict.LIMITED, session_id=session, failure="usage_limit", final_text=f"Half, by {session}.",
                            resets_at=(clock() + RESET).isoformat(), **given)  # fmt: skip
            ends(fleet, task, LIMITED, limit)

        assert order().session is None
        meets_a_limit("s-1")
        clock.pass_(1)
        second = order()
        words = start_request(second, 1)["agent"]
        assert (second.cli, second.session, words["argv"]) == ("two", None, ["x"])
        assert "What was done before" in words["prompt"] and "Half, by s-1." in words["prompt"]
        meets_a_limit("s-2")
        clock.pass_(RESET.total_seconds() + 61)
        third = order()
        words = start_request(third, 1)["agent"]
        assert (third.cli, words["argv"]) == ("one", ["x", "--resume", "s-1"]), "its own, not the newest"
        assert words["prompt"].startswith("Go on where you stopped."), "in its own session"
        assert "Half, by s-2." in words["prompt"] and "Half, by s-1." not in words["prompt"], "what it does not know"
        assert newest(fleet, task)[1].session == "s-1"


class TestASession:
    def ended(self, fleet: Fleet, task: Task, **given: Any) -> None:
        with fleet.engine.begin() as conn:
            if tasks.load(conn, task.id).state is State.FAILED:
                tasks.record(conn, task.id, Fact(FactKind.RETRY), fleet.clock())
        placement.place_waiting(fleet)
        ends(
            fleet,
            task,
            LIMITED | {"failure": "killed"},
            Outcome(Verdict.KILLED, failure="killed", final_text="Half of it.", **given),
        )

    def next_order(self, fleet: Fleet, task: Task, clock: FakeClock) -> start_order.Order:
        clock.pass_(3600)
        expiry.expire_and_wake(fleet)
        placement.place_waiting(fleet)
        now, _ = newest(fleet, task)
        order = start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=now.run))
        assert order
        return order

    def test_is_gone_on_with_after_a_kill(self, fleet: Fleet, clock: FakeClock) -> None:
        (task,) = begin(fleet)
        self.ended(fleet, task, session_id="s-1")
        assert self.next_order(fleet, task, clock).session == "s-1"

    def test_that_is_gone_is_followed_by_a_fresh_one_that_hears_what_was_done(
        self, fleet: Fleet, clock: FakeClock
    ) -> None:
        (task,) = begin(fleet)
        self.ended(fleet, task, session_id="s-1")
        self.next_order(fleet, task, clock)
        gone = Outcome(Verdict.FAILED, failure="no_session", error="No conversation found")
        assert ends(fleet, task, LIMITED, gone).state is State.CREATED
        order = self.next_order(fleet, task, clock)
        assert order.session is None and "Half of it." in order.prompt and "What was done before" in order.prompt
        with fleet.engine.begin() as conn:
            assert views.run_list(conn, task.id)[-1]["session"] is None

    def test_of_another_host_is_of_no_use(self, fleet: Fleet, clock: FakeClock) -> None:
        (task,) = begin(fleet, 1, hosts=[a_host("a")])
        self.ended(fleet, task, session_id="s-1")
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host("b")])
        order = self.next_order(fleet, task, clock)
        assert (order.host.host_id, order.session) == ("b", None)

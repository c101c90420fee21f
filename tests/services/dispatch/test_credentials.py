"""A credential that met a limit or was refused is closed for all tasks; no host is blamed."""

from datetime import timedelta

from app.domain.host import Fitness
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Outcome, Verdict
from app.domain.task import State
from app.ports import Fleet
from app.services.dispatch import credentials, explain, placement, start_order
from app.services.runs import expiry, report
from app.store import hosts, runs, tasks
from tests.builders import a_host, an_outbox_entry, apply
from tests.conftest import FakeClock
from tests.services.dispatch.limited_runs import LIMITED, RESET, a_cli, a_limit, begin, ends, newest, states
from tests.workshop import a_result


class TestAUsageLimit:
    def test_of_160_tasks_costs_one_run(self, fleet: Fleet, clock: FakeClock) -> None:
        many = begin(fleet, 160, hosts=[a_host("a", slots=1), a_host("b", slots=8, capabilities=("other",))])
        assert placement.place_waiting(fleet) == 1
        parked = ends(fleet, many[0], LIMITED, a_limit(fleet))
        assert (parked.state, parked.reason, parked.retry_count) == (State.PARKED, "limit", 0)
        assert parked.due_at == clock() + RESET + timedelta(seconds=60)
        for _ in range(60):
            clock.pass_(100)
            expiry.expire_and_wake(fleet)
            assert placement.place_waiting(fleet) == 0
        assert states(fleet).count(State.CREATED) == 159
        with fleet.engine.begin() as conn:
            assert sum(len(runs.of_task(conn, task.id)) for task in many) == 1

    def test_is_told_by_why_and_blames_no_host(self, fleet: Fleet, clock: FakeClock) -> None:
        first, second = begin(fleet, 2, hosts=[a_host("a", slots=1)])
        placement.place_waiting(fleet)
        ends(fleet, first, LIMITED, a_limit(fleet))
        with fleet.engine.begin() as conn:
            assert "the limit of coder is reached until" in str(explain.why(conn, second, clock())["refusals"])
            (host,) = hosts.all_hosts(conn)
            assert host.fitness is not Fitness.QUARANTINED and host.takes_work
            assert credentials.limits(conn)[0]["why"].startswith("usage_limit")

    def test_closes_every_cli_that_pays_with_the_same_credential(self, fleet: Fleet, clock: FakeClock) -> None:
        slots = [
            {"agent_type": name, "max_concurrency": 1, "capabilities": ["python"]} for name in ("one", "two", "three")
        ]
        clis = {"one": a_cli(credential="team"), "two": a_cli(credential="team"), "three": a_cli()}
        first, *_ = begin(fleet, 1, hosts=[a_host(agents=slots)], clis=clis)
        placement.place_waiting(fleet)
        _, run = newest(fleet, first)
        ends(fleet, first, LIMITED, a_limit(fleet))
        with fleet.engine.begin() as conn:
            closed = credentials.closed_credentials(conn, clock()).closed
        assert set(closed) == ({"three"} if run.agent_type == "three" else {"one", "two"})

    def test_is_tried_again_by_one_run_and_then_open_to_all(self, fleet: Fleet, clock: FakeClock) -> None:
        first, second, third = begin(fleet, 3, hosts=[a_host("a", slots=1)])
        placement.place_waiting(fleet)
        ends(fleet, first, LIMITED, a_limit(fleet))
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host("a", slots=3)])
        clock.pass_(RESET.total_seconds() + 61)
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 1 and placement.place_waiting(fleet) == 0
        with fleet.engine.begin() as conn:
            going = [task for task in (first, second, third) if tasks.load(conn, task.id).state is State.ASSIGNED]
            waiting = next(task for task in (first, second, third) if task not in going)
            assert "a run tries whether its limit is over" in str(explain.why(conn, waiting, clock())["refusals"])
        ends(fleet, going[0], a_result(pushed=True, head="a"), Outcome(Verdict.SUCCEEDED))
        assert placement.place_waiting(fleet) == 2

    def test_is_not_over_because_a_run_got_through_that_began_before(self, fleet: Fleet) -> None:
        first, second, _ = begin(fleet, 3, hosts=[a_host("a", slots=2)])
        placement.place_waiting(fleet)
        ends(fleet, first, LIMITED, a_limit(fleet))
        ends(fleet, second, a_result(pushed=True, head="a"), Outcome(Verdict.SUCCEEDED))
        assert placement.place_waiting(fleet) == 0

    def test_without_a_known_end_is_waited_for_longer_each_time(self, fleet: Fleet, clock: FakeClock) -> None:
        (task,) = begin(fleet, 1, hosts=[a_host(slots=1)])
        pauses = []
        for _ in range(4):
            assert placement.place_waiting(fleet) == 1
            parked = ends(fleet, task, LIMITED, a_limit(fleet, reset=None))
            assert parked.due_at and parked.retry_count == 0
            pauses.append((parked.due_at - clock()).total_seconds())
            clock.pass_(pauses[-1] + 1)
            expiry.expire_and_wake(fleet)
        assert pauses == [60, 120, 240, 480]

    def test_goes_on_in_its_session_on_its_host(self, fleet: Fleet, clock: FakeClock) -> None:
        (task,) = begin(fleet, 1, hosts=[a_host("a", slots=1), a_host("b", slots=1)])
        placement.place_waiting(fleet)
        before = newest(fleet, task)[1].host_id
        ends(fleet, task, LIMITED, a_limit(fleet))
        clock.pass_(RESET.total_seconds() + 61)
        expiry.expire_and_wake(fleet)
        placement.place_waiting(fleet)
        now, run = newest(fleet, task)
        order = start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=now.run))
        assert order and (run.host_id, order.session) == (before, "s-1")
        assert order.prompt.startswith("Go on where you stopped.")

    def test_a_person_may_say_that_it_is_over(self, fleet: Fleet) -> None:
        first, _ = begin(fleet, 2, hosts=[a_host(slots=1)])
        placement.place_waiting(fleet)
        ends(fleet, first, LIMITED, a_limit(fleet))
        assert credentials.reopen(fleet, "coder") and not credentials.reopen(fleet, "coder")
        assert placement.place_waiting(fleet) == 1

    def test_of_an_agent_closes_no_host(self, fleet: Fleet, clock: FakeClock) -> None:
        (task,) = begin(fleet)
        with fleet.engine.begin() as conn:
            tasks.record(conn, task.id, Fact(FactKind.CLAIMED, {"agent_id": "a-1", "agent_type": "coder"}), clock())
        parked = ends(fleet, task, LIMITED, a_limit(fleet, reset=None))
        assert parked.state is State.PARKED and parked.due_at == clock() + timedelta(minutes=1)
        with fleet.engine.begin() as conn:
            assert credentials.closed_credentials(conn, clock()).closed == {}

    def test_that_is_near_is_shown(self, fleet: Fleet) -> None:
        (task,) = begin(fleet)
        placement.place_waiting(fleet)
        ends(fleet, task, a_result(pushed=True, head="a"), Outcome(Verdict.SUCCEEDED, warning="91% are used"))
        with fleet.engine.begin() as conn:
            (told,) = credentials.limits(conn)
        assert (told["warning"], told["closed_until"]) == ("91% are used", None)


class TestARefusedLogin:
    def refused(self, failure: str = "auth") -> Outcome:
        return Outcome(Verdict.FAILED, session_id="s-1", failure=failure, error="401 Unauthorized")

    def test_parks_one_task_and_closes_the_credential_on_every_host_until_a_run_gets_through(
        self, fleet: Fleet, clock: FakeClock
    ) -> None:
        first, second, _ = begin(fleet, 3, hosts=[a_host("a", slots=1), a_host("b", slots=0)])
        placement.place_waiting(fleet)
        parked = ends(fleet, first, LIMITED, self.refused())
        assert (parked.state, parked.reason, parked.retry_count) == (State.PARKED, "auth", 0)
        assert parked.due_at == clock() + timedelta(minutes=5)
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host("a", slots=2), a_host("b", slots=2)])
            assert "`fleet clis open coder`" in str(explain.why(conn, second, clock())["sentence"])
            (told,) = credentials.limits(conn)
            assert told["refused"] and told["why"] == "auth: 401 Unauthorized"
        assert placement.place_waiting(fleet) == 0
        clock.pass_(301)
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 1 and placement.place_waiting(fleet) == 0
        with fleet.engine.begin() as conn:
            (trial,) = [task for task in tasks.all_tasks(conn) if task.state is State.ASSIGNED]
        again = ends(fleet, trial, LIMITED, self.refused())
        assert again.due_at == clock() + timedelta(minutes=10) and placement.place_waiting(fleet) == 0
        clock.pass_(601)
        expiry.expire_and_wake(fleet)
        placement.place_waiting(fleet)
        with fleet.engine.begin() as conn:
            (trial,) = [task for task in tasks.all_tasks(conn) if task.state is State.ASSIGNED]
        ends(fleet, trial, a_result(pushed=True, head="a"), Outcome(Verdict.SUCCEEDED))
        assert placement.place_waiting(fleet) == 2

    def test_is_opened_by_a_person_and_what_waited_goes_on_at_once(self, fleet: Fleet) -> None:
        first, _ = begin(fleet, 2, hosts=[a_host(slots=2)])
        placement.place_waiting(fleet)
        for task in (first, _):
            ends(fleet, task, LIMITED, self.refused())
        assert states(fleet) == ["parked", "parked"]
        assert credentials.reopen(fleet, "coder") and not credentials.reopen(fleet, "coder")
        assert placement.place_waiting(fleet) == 2
        assert newest(fleet, first)[0].retry_count == 0

    def test_that_was_never_there_shuts_the_one_host_and_the_task_goes_on_elsewhere(self, fleet: Fleet) -> None:
        first, second, third = begin(fleet, 3, hosts=[a_host("a", slots=1), a_host("b", slots=0)])
        placement.place_waiting(fleet)
        parked = ends(fleet, first, LIMITED, self.refused("not_logged_in"))
        assert (parked.state, parked.due_at) == (State.PARKED, fleet.clock() + timedelta(minutes=5)), "nobody else can"
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host("a", slots=2), a_host("b", slots=1)])
        assert placement.place_waiting(fleet) == 1
        assert newest(fleet, second)[1].host_id == "b"
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host("a", slots=2), a_host("b", slots=1), a_host("c", slots=1)])
        again = ends(fleet, second, LIMITED, self.refused("not_logged_in"))
        assert again.due_at == fleet.clock(), "another host has its own login"
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 1
        assert credentials.reopen(fleet, "coder@a")
        assert placement.place_waiting(fleet) == 2 and newest(fleet, third)[0].state is State.ASSIGNED

    def test_of_an_agent_is_the_agents_own_affair(self, fleet: Fleet, clock: FakeClock) -> None:
        (task,) = begin(fleet)
        with fleet.engine.begin() as conn:
            tasks.record(conn, task.id, Fact(FactKind.CLAIMED, {"agent_id": "a-1", "agent_type": "coder"}), clock())
        failed = ends(fleet, task, LIMITED, self.refused())
        assert (failed.state, failed.reason) == (State.FAILED, "auth")


class TestBeforeARunIsStarted:
    def test_one_whose_credential_was_closed_meanwhile_waits_and_is_not_spent(
        self, fleet: Fleet, clock: FakeClock
    ) -> None:
        first, second = begin(fleet, 2, hosts=[a_host(slots=2)])
        assert placement.place_waiting(fleet) == 2
        run = newest(fleet, second)[1]
        assert credentials.why_not_start(fleet, run) is None
        ends(fleet, first, LIMITED, a_limit(fleet))
        held = credentials.why_not_start(fleet, run)
        assert held and held.reason == "limit"
        report.parked(fleet, run, held)
        now, _ = newest(fleet, second)
        assert (now.state, now.reason, now.due_at) == (State.PARKED, "limit", clock() + RESET + timedelta(seconds=60))

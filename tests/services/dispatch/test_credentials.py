"""A limited credential is closed for everybody, the host is not blamed, and a budget parks what uses it up."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from app.cli.demo.forge import FakeForge
from app.domain.agent import Registration
from app.domain.errors import Refused, Unavailable
from app.domain.host import Fitness
from app.domain.lifecycle import Fact, FactKind
from app.domain.quota import Amount, Spent
from app.domain.run import Outcome, Run, Usage, Verdict
from app.domain.task import State, Task
from app.ports import Fleet
from app.services.agents import leases
from app.services.dispatch import budgets, credentials, explain, placement, start_order
from app.services.runs import expiry, report
from app.store import agents, hosts, repositories, runs, tasks, views
from app.store import usage as rows
from app.store.tables import runs as run_rows
from tests.builders import a_host, a_repository, a_stored_task, an_outbox_entry, apply
from tests.conftest import FakeClock
from tests.workshop import Workshop, a_result
from workers.runs.start_request import start_request

RESET = timedelta(hours=2)
LIMITED = {"end": "failed", "step": "agent", "exit_code": 1, "reason": "the CLI ended with code 1"}


def a_cli(**given: Any) -> dict[str, Any]:
    return {"argv": ["x"], "parser": "raw", "prompt": "stdin", **given}


def a_limit(fleet: Fleet, reset: timedelta | None = RESET, **given: Any) -> Outcome:
    at = (fleet.clock() + reset).isoformat() if reset else None
    return Outcome(Verdict.LIMITED, session_id="s-1", failure="usage_limit", resets_at=at, **given)


def begin(fleet: Fleet, count: int = 1, **declared: Any) -> list[Task]:
    with fleet.engine.begin() as conn:
        apply(conn, **declared)
        repositories.save_repository(conn, "main", a_repository())
        return [a_stored_task(conn, f"acme/widgets#{number + 1}") for number in range(count)]


def newest(fleet: Fleet, task: Task) -> tuple[Task, Run]:
    with fleet.engine.begin() as conn:
        now = tasks.load(conn, task.id)
        run = runs.get(conn, task.id, now.run)
    assert run is not None
    return now, run


def ends(fleet: Fleet, task: Task, result: Mapping[str, Any], outcome: Outcome) -> Task:
    _, run = newest(fleet, task)
    report.started(fleet, run)
    report.ended(fleet, run, result, outcome)
    return newest(fleet, task)[0]


def states(fleet: Fleet) -> list[str]:
    with fleet.engine.begin() as conn:
        return sorted(task.state for task in tasks.everything(conn))


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
            (trial,) = [task for task in tasks.everything(conn) if task.state is State.ASSIGNED]
        again = ends(fleet, trial, LIMITED, self.refused())
        assert again.due_at == clock() + timedelta(minutes=10) and placement.place_waiting(fleet) == 0
        clock.pass_(601)
        expiry.expire_and_wake(fleet)
        placement.place_waiting(fleet)
        with fleet.engine.begin() as conn:
            (trial,) = [task for task in tasks.everything(conn) if task.state is State.ASSIGNED]
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


class TestASwitchedOffRepository:
    RULE: ClassVar[dict[str, Any]] = {
        "forge": "main", "name": "acme/widgets", "cli": None, "max_retries": 2, "task_timeout_secs": 60, "validation": [],
        "enabled": False,
    }  # fmt: skip

    def test_gets_no_runs_and_holds_up_nobody(self, fleet: Fleet, clock: FakeClock) -> None:
        off, *_ = begin(fleet, 5, repositories=[self.RULE], hosts=[a_host(slots=1)])
        with fleet.engine.begin() as conn:
            other = a_stored_task(conn, "acme/gears#9", repository_id=43)
        assert placement.place_waiting(fleet) == 1
        assert newest(fleet, other)[0].state is State.ASSIGNED
        with fleet.engine.begin() as conn:
            assert "enabled = false" in str(explain.why(conn, tasks.load(conn, off.id), clock())["reason"])

    def test_is_nothing_for_agents_either(self, fleet: Fleet) -> None:
        off, *_ = begin(fleet, 70, repositories=[self.RULE], hosts=[])
        with fleet.engine.begin() as conn:
            other = a_stored_task(conn, "acme/gears#9", repository_id=43)
        agent = Registration("a1", "coder", "h", ("python",), max_concurrency=9)
        with fleet.engine.begin() as conn:
            agents.register(conn, agent, b"its token's hash", fleet.clock())
        request = leases.ClaimRequest("a1", b"its token's hash", most=5)
        found = leases.claim(fleet, request)
        assert found is not None
        assert [one["task_id"] for one in found] == [other.task_id]
        assert leases.claim(fleet, request) == []
        with pytest.raises(Refused, match="enabled = false"):
            placement.to_agent(fleet, off.task_id, "a1")

    def test_starts_nothing_that_was_placed_before_and_it_waits_again(self, fleet: Fleet, clock: FakeClock) -> None:
        task, *_ = begin(fleet, 1, repositories=[self.RULE | {"enabled": True}], hosts=[a_host(slots=1)])
        assert placement.place_waiting(fleet) == 1
        with fleet.engine.begin() as conn:
            apply(conn, repositories=[self.RULE], hosts=[a_host(slots=1)])
        with pytest.raises(Unavailable, match="enabled = false"):
            start_order.order(fleet, an_outbox_entry(task_pk=task.id, run=1))
        clock.pass_(fleet.config.confirm_secs + 1)
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 0
        now, _ = newest(fleet, task)
        assert (now.state, now.retry_count) == (State.CREATED, 0)


def test_a_switched_off_repository_takes_no_issue_in(forge: FakeForge, make_fleet: Callable[..., Fleet]) -> None:
    rule: dict[str, Any] = {
        "forge": "main", "name": "acme/widgets", "cli": None, "max_retries": 2, "task_timeout_secs": 60, "validation": [],
    }  # fmt: skip
    shop = Workshop(forge, make_fleet, repositories=[rule | {"enabled": False}])
    shop.open_issue()
    shop.converge()
    assert shop.tasks() == [] and "enabled = false" in str(shop.inbox()[0].why)
    with shop.fleet.engine.begin() as conn:
        apply(conn, forge_url=forge.url, repositories=[rule])
    shop.reconcile()
    assert len(shop.tasks()) == 1


def with_budget(**budget: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "forge": "main",
        "name": "acme/*",
        "cli": None,
        "max_retries": 2,
        "task_timeout_secs": 60,
        "validation": [],
    }
    return {"repositories": [rule | {"budget": budget}], "hosts": [a_host(slots=4)]}


class TestABudget:
    @pytest.fixture
    def going(self, fleet: Fleet) -> Callable[..., tuple[Task, Run]]:
        def make(**budget: Any) -> tuple[Task, Run]:
            (task,) = begin(fleet, 1, **with_budget(**budget))
            placement.place_waiting(fleet)
            report.started(fleet, newest(fleet, task)[1])
            return newest(fleet, task)

        return make

    def use(self, fleet: Fleet, run: Run, **usage: Any) -> None:
        with fleet.engine.begin() as conn:
            runs.noted(conn, run.id, None, {"usage": usage}, fleet.clock())

    def test_in_tokens_is_judged_while_the_run_goes(self, fleet: Fleet, going: Any) -> None:
        _, run = going(run={"tokens": 1000})
        self.use(fleet, run, input_tokens=900, output_tokens=99, cost_usd=None)
        assert budgets.over_budget(fleet, run) is None
        self.use(fleet, run, input_tokens=900, output_tokens=100)
        assert "1,000 tokens" in (budgets.over_budget(fleet, run) or pytest.fail("not spent")).why

    @pytest.mark.parametrize("told", ["many", {"usage": 5}, {"usage": {"input_tokens": "9999"}}, [1]])
    def test_counts_no_nonsense(self, fleet: Fleet, going: Any, told: Any) -> None:
        _, run = going(run={"tokens": 1000})
        with fleet.engine.begin() as conn:
            runs.noted(conn, run.id, None, told, fleet.clock())
        assert budgets.over_budget(fleet, run) is None

    def test_in_minutes_needs_no_word_of_the_cli(self, fleet: Fleet, going: Any, clock: FakeClock) -> None:
        _, run = going(task={"minutes": 10})
        clock.pass_(599)
        assert budgets.over_budget(fleet, run) is None
        clock.pass_(1)
        assert budgets.over_budget(fleet, run) is not None

    def test_that_is_used_up_parks_the_task_until_it_is_raised(self, fleet: Fleet, going: Any) -> None:
        task, run = going(run={"dollars": 1.0})
        self.use(fleet, run, cost_usd=1.5)
        spent = budgets.over_budget(fleet, run)
        assert spent
        budgets.record_stop_reason(fleet, run, spent)
        killed = Outcome(Verdict.KILLED, session_id="s-1", failure="killed", usage=Usage(cost_usd=1.5))
        report.ended(fleet, run, {"end": "cancelled", "step": "agent", "exit_code": 143}, killed)
        parked, _ = newest(fleet, task)
        assert (parked.state, parked.reason, parked.due_at, parked.retry_count) == (State.PARKED, "budget", None, 0)
        raised = budgets.raise_budget(fleet, task.task_id, Amount(dollars=2))
        assert (raised.state, raised.ready) == (State.CREATED, True)
        assert placement.place_waiting(fleet) == 1
        assert budgets.over_budget(fleet, newest(fleet, task)[1]) is None

    def test_of_a_task_counts_its_runs_together(self, fleet: Fleet, going: Any) -> None:
        task, run = going(task={"tokens": 1000})
        report.ended(
            fleet,
            run,
            {"end": "failed", "step": "agent", "exit_code": 1},
            Outcome(Verdict.FAILED, failure="network", usage=Usage(900, 0, 150)),
        )
        with fleet.engine.begin() as conn:
            tasks.record(conn, task.id, Fact(FactKind.RETRY), fleet.clock())
        placement.place_waiting(fleet)
        again = newest(fleet, task)[1]
        spent = budgets.over_budget(fleet, again)
        assert spent and "the task's budget" in spent.why
        report.parked(fleet, again, spent)
        assert newest(fleet, task)[0].reason == "budget"

    def test_of_a_day_lets_the_task_go_on_tomorrow(self, fleet: Fleet, going: Any, clock: FakeClock) -> None:
        task, run = going(day={"tokens": 1000})
        self.use(fleet, run, input_tokens=2000)
        spent = budgets.over_budget(fleet, run)
        assert spent and spent.until
        budgets.record_stop_reason(fleet, run, spent)
        report.ended(fleet, run, {"end": "cancelled", "step": "agent"}, Outcome(Verdict.KILLED, usage=Usage(2000)))
        assert newest(fleet, task)[0].due_at == spent.until
        clock.pass_(86400)
        expiry.expire_and_wake(fleet)
        placement.place_waiting(fleet)
        assert budgets.over_budget(fleet, newest(fleet, task)[1]) is None

    def test_that_ran_out_at_the_very_end_takes_nothing_back(self, fleet: Fleet, going: Any) -> None:
        task, run = going(run={"tokens": 10})
        self.use(fleet, run, input_tokens=20)
        budgets.record_stop_reason(fleet, run, budgets.over_budget(fleet, run) or pytest.fail("not spent"))
        report.ended(fleet, run, a_result(pushed=True, head="a"), Outcome(Verdict.SUCCEEDED))
        assert newest(fleet, task)[0].state is State.RUNNING

    def test_what_was_raised_adds_up(self, fleet: Fleet, going: Any) -> None:
        task, _ = going(run={"tokens": 10})
        for _ in range(2):
            budgets.raise_budget(fleet, task.task_id, Amount(tokens=5, minutes=1))
        with fleet.engine.begin() as conn:
            assert rows.allowance(conn, task.id) == Amount(10, 0, 2)


class TestADay:
    """Of UTC. The clock stands at 23:50 when the run begins."""

    ENDED: ClassVar[dict[str, Any]] = {"end": "cancelled", "step": "agent"}

    @pytest.fixture
    def run(self, fleet: Fleet, clock: FakeClock, request: pytest.FixtureRequest) -> Run:
        clock.now = clock.now.replace(hour=23, minute=50)
        (task,) = begin(fleet, 1, **with_budget(day=getattr(request, "param", {"tokens": 1000})))
        placement.place_waiting(fleet)
        report.started(fleet, newest(fleet, task)[1])
        return newest(fleet, task)[1]

    def use(self, fleet: Fleet, run: Run, tokens: int) -> Spent | None:
        with fleet.engine.begin() as conn:
            runs.noted(conn, run.id, None, {"usage": {"input_tokens": tokens}}, fleet.clock())
        return budgets.over_budget(fleet, run)

    def used(self, fleet: Fleet, run: Run) -> tuple[float, float]:
        """Today, and in all."""
        with fleet.engine.begin() as conn:
            found = rows.used(conn, tasks.load(conn, run.task_pk), run.id, fleet.clock())
        return found["day"].tokens, found["run"].tokens

    def end(self, fleet: Fleet, run: Run, tokens: int) -> Task:
        report.ended(fleet, run, self.ENDED, Outcome(Verdict.KILLED, failure="killed", usage=Usage(tokens)))
        with fleet.engine.begin() as conn:
            return tasks.load(conn, run.task_pk)

    def test_counts_what_is_told_on_it_though_the_run_began_the_day_before(
        self, fleet: Fleet, clock: FakeClock, run: Run
    ) -> None:
        assert self.use(fleet, run, 900) is None
        clock.pass_(660)
        assert (budgets.over_budget(fleet, run), self.used(fleet, run)) == (None, (0, 900))
        assert (self.use(fleet, run, 1899), self.used(fleet, run)) == (None, (999, 1899))
        spent = self.use(fleet, run, 1900)
        assert spent and spent.until == clock.now.replace(day=26, hour=0, minute=0)
        budgets.record_stop_reason(fleet, run, spent)
        assert self.end(fleet, run, 1910).due_at == spent.until
        assert self.used(fleet, run) == (1010, 1910)
        clock.pass_(86400)
        assert self.used(fleet, run) == (0, 1910)

    def test_that_is_used_up_is_over_at_midnight_also_for_a_run_that_takes_until_then_to_end(
        self, fleet: Fleet, clock: FakeClock, run: Run
    ) -> None:
        clock.pass_(598)
        spent = self.use(fleet, run, 1000)
        assert spent
        budgets.record_stop_reason(fleet, run, spent)
        clock.pass_(5)
        parked = self.end(fleet, run, 1010)
        assert (parked.state, parked.due_at) == (State.PARKED, clock.now.replace(second=0))
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 1
        again = newest(fleet, parked)[1]
        assert (credentials.why_not_start(fleet, again), self.used(fleet, run)) == (None, (10, 1010))

    def test_lets_a_task_that_waits_for_the_next_one_go_on_at_its_first_moment(
        self, fleet: Fleet, clock: FakeClock, run: Run
    ) -> None:
        budgets.record_stop_reason(fleet, run, self.use(fleet, run, 1000) or pytest.fail("not spent"))
        self.end(fleet, run, 1000)
        clock.pass_(599)
        expiry.expire_and_wake(fleet)
        assert states(fleet) == ["parked"]
        clock.pass_(1)
        expiry.expire_and_wake(fleet)
        assert placement.place_waiting(fleet) == 1

    def test_counts_what_is_told_at_the_end_alone_when_it_is_told(
        self, fleet: Fleet, clock: FakeClock, run: Run
    ) -> None:
        clock.pass_(1200)
        self.end(fleet, run, 1200)
        assert self.used(fleet, run) == (1200, 1200)

    @pytest.mark.parametrize("run", [{"minutes": 30}], indirect=True)
    def test_counts_minutes_from_its_beginning(self, fleet: Fleet, clock: FakeClock, run: Run) -> None:
        clock.pass_(600 + 1799)
        assert budgets.over_budget(fleet, run) is None
        clock.pass_(1)
        assert budgets.over_budget(fleet, run) is not None

    def test_counts_what_a_lost_run_had_told(self, fleet: Fleet, clock: FakeClock, run: Run) -> None:
        self.use(fleet, run, 900)
        with fleet.engine.begin() as conn:
            conn.execute(sa.update(run_rows).values(deadline=clock()))
            clock.pass_(1)
            assert runs.expired(conn, run.id, clock())
        assert self.used(fleet, run) == (900, 900)


class TestACapInDollars:
    """What .fleet.toml chose was not known to `fleet apply`."""

    def held(self, fleet: Fleet, **declared: Any) -> tuple[Task, Spent | None]:
        (task,) = begin(fleet, 1, **with_budget(day={"dollars": 5}) | declared)
        placement.place_waiting(fleet)
        _, run = newest(fleet, task)
        held = credentials.why_not_start(fleet, run)
        if held:
            report.parked(fleet, run, held)
        return newest(fleet, task)[0], held

    def test_parks_what_nobody_knows_the_price_of_before_it_is_started_and_says_so(
        self, fleet: Fleet, clock: FakeClock
    ) -> None:
        task, held = self.held(fleet)
        assert (task.state, task.reason, task.due_at, task.retry_count) == (State.PARKED, "budget", None, 0)
        with fleet.engine.begin() as conn:
            told = explain.why(conn, task, clock())
        assert held and told["why"] == held.why
        assert "the price of the CLI 'coder' is unknown" in held.why and f"retry {task.task_id}" in held.why

    def test_counts_the_model_that_the_host_chose(self, fleet: Fleet) -> None:
        price = {"input": 1.0, "cached": 1.0, "output": 1.0, "as_of": "today"}
        clis = {"coder": a_cli(model="cheap", price=price)}
        assert self.held(fleet, clis=clis)[1] is None
        _, held = self.held(fleet, clis=clis, hosts=[a_host(clis={"coder": {"model": "dear", "price": {}}})])
        assert held and "the model 'dear'" in held.why

    def test_is_kept_by_one_that_tells_its_dollars_itself(self, fleet: Fleet) -> None:
        assert self.held(fleet, clis={"coder": a_cli(reports_cost=True)})[1] is None


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

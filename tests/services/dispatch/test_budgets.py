"""A budget in tokens, dollars or minutes parks the task that uses it up, until the next day or until it is raised."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from app.domain.lifecycle import Fact, FactKind
from app.domain.quota import Amount, Spent
from app.domain.run import Outcome, Run, Usage, Verdict
from app.domain.task import State, Task
from app.ports import Fleet
from app.services.dispatch import budgets, credentials, explain, placement
from app.services.runs import expiry, report
from app.store import runs, tasks
from app.store import usage as rows
from app.store.tables import runs as run_rows
from tests.builders import a_host
from tests.conftest import FakeClock
from tests.services.dispatch.limited_runs import a_cli, begin, newest, states
from tests.workshop import a_result


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
            runs.record_progress(conn, run.id, None, {"usage": usage}, fleet.clock())

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
            runs.record_progress(conn, run.id, None, told, fleet.clock())
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
            runs.record_progress(conn, run.id, None, {"usage": {"input_tokens": tokens}}, fleet.clock())
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
            assert runs.expire(conn, run.id, clock())
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

"""Limits of others and budgets of ours, as sums and moments."""

from datetime import timedelta
from typing import ClassVar

import pytest

from app.domain.quota import Amount, opens_at, spent_out, tomorrow
from app.domain.run import Outcome, Usage, Verdict, judge
from tests.builders import AT


class TestWhenALimitIsOver:
    def test_a_minute_after_its_reset(self) -> None:
        assert opens_at("2026-11-24T21:07:00Z", 0, AT) == AT.replace(hour=21, minute=8)

    @pytest.mark.parametrize("resets_at", [None, "", "soon", "2026-11-24T02:59:00Z", "2027-11-24T21:07:00Z"])
    def test_after_a_growing_pause_where_that_moment_is_not_known_past_or_absurd(self, resets_at: str | None) -> None:
        pauses = [opens_at(resets_at, tries, AT) - AT for tries in (0, 1, 2, 3, 20)]
        assert pauses == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 60)]


class TestABudget:
    BUDGET: ClassVar[dict[str, dict[str, float]]] = {
        "run": {"tokens": 1000},
        "task": {"dollars": 2.0},
        "day": {"minutes": 60},
    }

    def test_holds_while_less_is_used(self) -> None:
        assert spent_out(self.BUDGET, {"run": Amount(tokens=999), "task": Amount(dollars=1.99)}, Amount(), AT) is None

    @pytest.mark.parametrize(
        ("used", "said"),
        [
            ({"run": Amount(tokens=1204)}, "the run's budget of 1,000 tokens is used up: 1,204 tokens"),
            ({"task": Amount(dollars=2.0)}, "the task's budget of 2.00 dollars is used up: 2.00 dollars"),
            (
                {"day": Amount(minutes=61)},
                "the repository's budget of today of 60.00 minutes is used up: 61.00 minutes",
            ),
        ],
    )
    def test_is_used_up_with_a_sentence(self, used: dict[str, Amount], said: str) -> None:
        spent = spent_out(self.BUDGET, used, Amount(), AT)
        assert spent and spent.why == said

    def test_of_a_day_is_full_again_tomorrow_and_others_wait_for_a_person(self) -> None:
        of_day = spent_out(self.BUDGET, {"day": Amount(minutes=61)}, Amount(), AT)
        of_run = spent_out(self.BUDGET, {"run": Amount(tokens=1000)}, Amount(), AT)
        assert of_day and of_day.until == tomorrow(AT) and of_run and of_run.until is None

    def test_may_be_raised(self) -> None:
        used = {"run": Amount(tokens=1204)}
        assert spent_out(self.BUDGET, used, Amount(tokens=500), AT) is None
        assert spent_out(self.BUDGET, used, Amount(dollars=500), AT) is not None


class TestUsage:
    def test_since_another_is_the_difference(self) -> None:
        assert Usage(3600, 2400, 126, 0.5).since(Usage(1200, 800, 42, 0.25)) == Usage(2400, 1600, 84, 0.25)

    def test_what_nobody_counted_is_not_taken_off(self) -> None:
        assert Usage(10, None, 5).since(Usage(None, 3, 1)) == Usage(10, None, 4)


class TestTheEndOfARun:
    def test_for_its_budget_parks_the_task_for_a_person(self) -> None:
        outcome = Outcome(Verdict.KILLED, failure="budget", error="the run's budget is used up")
        fact = judge(2, {"end": "cancelled", "step": "agent", "exit_code": 143}, outcome)
        assert (fact.kind, fact.detail["reason"], fact.detail["until"]) == ("limit_reached", "budget", None)
        assert "the run's budget is used up" in fact.detail["why"]

    def test_for_a_cancel_is_no_limit(self) -> None:
        fact = judge(2, {"end": "cancelled", "step": "agent"}, Outcome(Verdict.LIMITED, failure="usage_limit"))
        assert (fact.kind, fact.detail["reason"]) == ("failed", "cancelled")

    def test_tells_the_clis_own_words(self) -> None:
        result = {"end": "failed", "step": "agent", "exit_code": 1, "reason": "the CLI ended with code 1"}
        fact = judge(2, result, Outcome(Verdict.FAILED, failure="auth", error="401 Unauthorized"))
        assert fact.detail["why"] == "the key or login was refused (401, 403): 401 Unauthorized"
        assert fact.detail["transient"] is False

    def test_is_named_by_its_host_where_that_knows_more(self) -> None:
        fact = judge(2, {"end": "failed", "step": "agent", "failure": "cli_missing"}, Outcome(Verdict.FAILED))
        assert (fact.detail["reason"], fact.detail["transient"]) == ("cli_missing", False)

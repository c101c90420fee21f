"""A run's end is judged: from the supervisor's result and the CLI's own words, never from an exit code alone."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.lifecycle import Fact, FactKind, decide
from app.domain.run import FAILURES, Outcome, Usage, Verdict, judge, run_name, slug
from app.domain.task import State
from tests.builders import AT, a_task

BROKEN = {"command": "make test", "exit_code": 2, "tail": "2 failed"}
SOUND = {"command": "make lint", "exit_code": 0, "tail": ""}


def a_result(end: str = "finished", **given: Any) -> dict[str, Any]:
    """What a supervisor writes at the end of a run that went well."""
    well = {
        "end": end,
        "step": "deliver",
        "reason": None,
        "exit_code": 0,
        "pushed": True,
        "head": "abc",
        "commits": ["abc"],
    }
    return well | {"validation": [SOUND]} | given


def judged(result: dict[str, Any], verdict: Verdict = Verdict.SUCCEEDED, **given: Any) -> Fact:
    return judge(3, result, Outcome(verdict, **given))


class TestAGoodEnd:
    def test_is_finished_with_all_that_was_delivered(self) -> None:
        fact = judged(a_result(), final_text="Done.", session_id="s-1")
        assert (fact.kind, fact.run) == (FactKind.FINISHED, 3)
        assert fact.detail == {"pushed": True, "head": "abc", "commits": ["abc"], "session": "s-1", "summary": "Done."}

    def test_needs_nothing_pushed_to_be_finished(self) -> None:
        fact = judged({"end": "finished"})
        assert (fact.kind, fact.detail["pushed"], fact.detail["commits"]) == (FactKind.FINISHED, False, [])

    def test_keeps_a_long_summary_short(self) -> None:
        assert len(judged(a_result(), final_text="x" * 10_000).detail["summary"]) == 4000


class TestABadEnd:
    @pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.KILLED])
    def test_a_cli_that_says_it_failed_is_believed_over_its_exit_code(self, verdict: Verdict) -> None:
        fact = judged(a_result(exit_code=0), verdict)
        assert (fact.kind, fact.detail["reason"]) == (FactKind.FAILED, "cli_failed")

    @pytest.mark.parametrize(
        ("step", "reason"),
        [
            ("prepare", "prepare_failed"),
            ("agent", "cli_failed"),
            ("validate", "validation_failed"),
            ("deliver", "push_refused"),
            ("a step of tomorrow", "cli_failed"),
            (None, "cli_failed"),
        ],
    )
    def test_is_named_after_its_step(self, step: str | None, reason: str) -> None:
        fact = judged(a_result("failed", step=step, reason="git said no"))
        assert (fact.kind, fact.detail["reason"], fact.detail["why"]) == (FactKind.FAILED, reason, "git said no")

    @pytest.mark.parametrize("end", ["timed_out", "silent"])
    def test_a_run_over_its_time_can_be_tried_again(self, end: str) -> None:
        fact = judged(a_result(end, reason="no output for 600 s"))
        assert (fact.kind, fact.detail["reason"], fact.detail["transient"]) == (FactKind.FAILED, end, True)

    @pytest.mark.parametrize("failure", sorted(FAILURES.keys() - {"lost"}))
    def test_the_parser_may_name_the_failure(self, failure: str) -> None:
        fact = judged(a_result("failed", step="agent"), Verdict.FAILED, failure=failure)
        assert (fact.detail["reason"], fact.detail["transient"]) == (failure, FAILURES[failure])

    @pytest.mark.parametrize("failure", [None, "a name nobody knows"])
    def test_a_failure_without_a_known_name_is_the_clis(self, failure: str | None) -> None:
        fact = judged(a_result("failed", step="agent", exit_code=7), Verdict.FAILED, failure=failure)
        assert (fact.detail["reason"], fact.detail["why"]) == ("cli_failed", "the CLI ended with exit code 7")

    @pytest.mark.parametrize("end", [None, "an end of tomorrow"])
    def test_an_end_nobody_knows_is_no_success(self, end: str | None) -> None:
        assert judged(a_result() | {"end": end}).kind is FactKind.FAILED

    def test_what_we_cancelled_says_so(self) -> None:
        fact = judged(a_result("cancelled", step="agent"), Verdict.KILLED)
        assert (fact.kind, fact.detail["reason"]) == (FactKind.FAILED, "cancelled")

    @pytest.mark.parametrize("verdict", list(Verdict))
    def test_a_lost_run_is_silence_whatever_its_last_words(self, verdict: Verdict) -> None:
        fact = judged(a_result("lost", reason="the host was rebooted"), verdict)
        assert (fact.kind, fact.run) == (FactKind.EXPIRED, 3)
        assert fact.detail == {"reason": "lost", "why": "the host was rebooted"}


class TestValidation:
    def test_one_failed_check_fails_the_run_and_shows_its_last_lines(self) -> None:
        fact = judged(a_result(validation=[SOUND, BROKEN]))
        assert (fact.kind, fact.detail["reason"], fact.detail["transient"]) == (
            FactKind.FAILED,
            "validation_failed",
            True,
        )
        assert fact.detail["why"] == "`make test` ended with 2:\n2 failed"

    def test_of_a_long_output_the_end_is_shown(self) -> None:
        why = judged(a_result(validation=[BROKEN | {"tail": "x" * 9000 + "the last line"}])).detail["why"]
        assert why.endswith("the last line") and len(why) < 1600

    @pytest.mark.parametrize("check", [{"command": "make"}, {"command": "make", "exit_code": None}])
    def test_a_check_without_an_exit_code_did_not_pass(self, check: dict[str, Any]) -> None:
        assert judged(a_result(validation=[SOUND, {"exit_code": None} | check])).kind is FactKind.FAILED

    def test_work_that_failed_its_checks_still_tells_what_was_pushed(self) -> None:
        assert judged(a_result(validation=[BROKEN])).detail["pushed"] is True

    @pytest.mark.parametrize("checks", [[], [SOUND], None])
    def test_a_check_that_could_not_be_started_is_told_with_the_supervisors_reason(self, checks: Any) -> None:
        fact = judged(a_result("failed", step="validate", validation=checks, reason="the shell could not be started"))
        assert (fact.detail["reason"], fact.detail["why"]) == ("validation_failed", "the shell could not be started")


class TestALimit:
    @pytest.mark.parametrize("end", ["finished", "failed", "timed_out", "silent"])
    def test_parks_the_task_until_its_reset_however_the_run_ended(self, end: str) -> None:
        until = "2026-11-24T21:07:00+00:00"
        fact = judged(a_result(end, step="agent"), Verdict.LIMITED, resets_at=until, session_id="s-1")
        assert (fact.kind, fact.detail["reason"], fact.detail["until"]) == (FactKind.LIMIT_REACHED, "limit", until)
        assert fact.detail["session"] == "s-1"

    def test_without_a_reset_time_is_still_a_limit(self) -> None:
        assert judged(a_result(), Verdict.LIMITED).detail["until"] is None


some_check = st.fixed_dictionaries({"command": st.just("make"), "exit_code": st.sampled_from([0, 1, 143, None])})
some_result = st.fixed_dictionaries(
    {"end": st.sampled_from(["finished", "failed", "timed_out", "silent", "lost", "cancelled", None])},
    optional={
        "step": st.sampled_from(["prepare", "agent", "validate", "deliver", None]),
        "validation": st.one_of(st.none(), st.lists(some_check, max_size=3)),
        "exit_code": st.sampled_from([0, 1, 143, None]),
        "reason": st.one_of(st.none(), st.text()),
        "pushed": st.booleans(),
    },
)


@given(some_result, st.sampled_from(Verdict), st.one_of(st.none(), st.sampled_from(sorted(FAILURES))))
@settings(max_examples=200, deadline=None, database=None)
def test_every_end_is_one_fact_and_no_failure_is_finished(
    result: dict[str, Any], verdict: Verdict, failure: str | None
) -> None:
    fact = judged(result, verdict, failure=failure)
    assert fact.run == 3
    assert fact.kind in (FactKind.FINISHED, FactKind.FAILED, FactKind.LIMIT_REACHED, FactKind.EXPIRED)
    sound = all(check["exit_code"] == 0 for check in result.get("validation") or [])
    if fact.kind is FactKind.FINISHED:
        assert result["end"] == "finished" and sound
        assert verdict in (Verdict.SUCCEEDED, Verdict.UNKNOWN)
    else:
        assert fact.detail["reason"] and fact.detail["why"]


class TestNames:
    @pytest.mark.parametrize(
        ("task_id", "name"),
        [
            ("acme/widgets#12", "acme-widgets-12"),
            ("../../etc/passwd", "etc-passwd"),
            ("-rf", "rf"),
            ("größe/修#1", "gr--e---1"),
            ("a" * 200 + "#1", "a" * 98 + "-1"),
        ],
    )
    def test_a_slug_is_safe_anywhere(self, task_id: str, name: str) -> None:
        assert slug(task_id) == name

    @given(st.text(max_size=300), st.integers(1, 10**9), st.integers(1, 99))
    @settings(max_examples=100, deadline=None, database=None)
    def test_a_runs_folder_stays_where_it_belongs(self, task_id: str, task_pk: int, number: int) -> None:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", run_name(task_pk, task_id, number))
        assert run_name(task_pk, task_id, number) != ".." and len(run_name(task_pk, task_id, number)) < 120

    def test_two_tasks_with_one_slug_have_two_folders(self) -> None:
        assert run_name(1, "acme/widgets#12", 1) != run_name(2, "acme-widgets-12", 1)


def test_an_outcome_can_be_written_down() -> None:
    outcome = Outcome(Verdict.LIMITED, "no more", "s-1", Usage(1, None, 2), "cli_failed")
    assert outcome.as_json()["usage"] == {
        "input_tokens": 1,
        "cached_tokens": None,
        "output_tokens": 2,
        "cost_usd": None,
    }
    assert outcome.as_json()["verdict"] == "limited"


def test_output_nobody_could_read_is_told_as_such() -> None:
    fact = judged(a_result(), Verdict.UNKNOWN)
    assert fact.kind is FactKind.FINISHED
    assert fact.detail["unreadable"]


def test_a_task_without_a_pull_request_is_not_done_by_output_nobody_could_read() -> None:
    running = a_task(state=State.RUNNING, run=3, wants_pull=False, ready=False)
    ended = decide(running, judged(a_result(), Verdict.UNKNOWN), AT).task
    assert (ended.state, ended.reason) == (State.FAILED, "no_delivery")


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"input_tokens": 5, "output_tokens": 2, "cost_usd": 0.5, "more": 1}, Usage(5, None, 2, 0.5)),
        ({"input_tokens": -1, "cached_tokens": True, "output_tokens": "2", "cost_usd": float("nan")}, Usage()),
        ({"input_tokens": 1e300}, Usage()),
        (None, Usage()),
        ([1], Usage()),
    ],
)
def test_what_somebody_tells_of_its_use_counts_as_far_as_it_is_a_count(told: object, used: Usage) -> None:
    assert Usage.told(told) == used

"""The output of Claude Code is parsed into an outcome."""

import json
from typing import Any

import pytest

from app.domain.run import Usage, Verdict
from tests.clis.parse_captured import GOOD, a_result, lines, parser_of, read, sample


class TestClaude:
    def test_of_a_resumed_session_only_this_runs_dollars_count(self) -> None:
        outcome = read("claude", sample("claude-resume.json"), 0, before=Usage(cost_usd=0.0026))
        assert outcome.usage == Usage(2400, 1600, 84, 0.0052) and outcome.cost_source == "the CLI"

    def test_its_stream_tells_progress(self) -> None:
        parser = parser_of("claude-write-skip-permissions.jsonl")
        parser.feed(sample("claude-write-skip-permissions.jsonl")[:5500])
        seen = parser.progress()
        assert seen.files == ["hello.txt"] and seen.usage.input_tokens == 2400 and seen.session_id

    def test_a_file_counts_as_touched_when_the_tool_has_answered_and_not_when_it_failed(self) -> None:
        asked, answered, *_ = [
            line
            for line in sample("claude-write-skip-permissions.jsonl").splitlines(keepends=True)
            if b"toolu_" in line
        ]
        parser = parser_of("claude-write-skip-permissions.jsonl")
        parser.feed(asked)
        assert parser.progress().files == [], "the file may never be written: after a kill now there is none"
        failed = parser_of("claude-write-skip-permissions.jsonl")
        failed.feed(asked + answered.replace(b'"type":"tool_result"', b'"type":"tool_result","is_error":true'))
        parser.feed(answered)
        assert (parser.progress().files, failed.progress().files) == (["hello.txt"], [])

    def test_calls_that_are_never_answered_keep_no_later_file_from_being_seen(self) -> None:
        def asks(number: int) -> dict[str, Any]:
            tool = {"type": "tool_use", "id": f"t{number}", "name": "Write", "input": {"file_path": f"{number}.txt"}}
            return {"type": "assistant", "message": {"id": f"m{number}", "content": [tool]}}

        nameless = {"type": "tool_use", "name": "Write", "input": {"file_path": "nameless.txt"}}
        answers = [{"type": "tool_result", "tool_use_id": "t300"}, {"type": "text", "text": "Done."}]
        parser = parser_of("claude-write-skip-permissions.jsonl")
        parser.feed(lines(*map(asks, range(301)), {"type": "assistant", "message": {"content": [nameless]}}))
        parser.feed(lines({"type": "user", "message": {"content": answers}}))
        assert parser.progress().files == ["300.txt"]

    def test_its_stream_tells_tokens_by_the_model_that_answered_before_it_ends(self) -> None:
        parser = parser_of("claude-write-skip-permissions.jsonl")
        *before, result = sample("claude-write-skip-permissions.jsonl").splitlines(keepends=True)
        parser.feed(b"".join(before))
        assert b'"result"' in result and parser.progress().usage == Usage(2400, 1600, 2)
        assert parser.progress().by_model == {"claude-opus-5-5": Usage(2400, 1600, 2)}

    def test_an_answer_in_pieces_counts_once_and_as_it_was_told_last(self) -> None:
        def piece(id_: str, output: int, model: str = "big") -> dict[str, Any]:
            used = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": output}
            return {"type": "assistant", "message": {"id": id_, "model": model, "content": [], "usage": used}}

        parser = parser_of("claude")
        parser.feed(lines(piece("a", 1), piece("a", 7), piece("b", 2), piece("c", 3, "small"), piece("b", 4)))
        assert parser.progress().usage == Usage(45, 15, 14)
        assert parser.progress().by_model == {"big": Usage(30, 10, 11), "small": Usage(15, 5, 3)}
        parser.feed(lines(*(piece(str(number), 1) for number in range(6000))))
        assert parser.progress().usage.output_tokens == 6014, "however many there are"

    def test_told_in_parts_an_answer_has_its_whole_length_at_its_end(self) -> None:
        parser = parser_of("claude-stream-partial.jsonl")
        parser.feed(b"".join(sample("claude-stream-partial.jsonl").splitlines(keepends=True)[:-1]))
        assert parser.progress().usage == Usage(1200, 800, 42)

    @pytest.mark.parametrize("wrap", [json.dumps, lambda one: json.dumps([one]), lambda one: json.dumps([one], indent=2),
                                      lambda one: json.dumps(one, indent=2), lambda one: "[\n" + json.dumps(one) + "\n]"])  # fmt: skip
    def test_alone_in_an_array_or_spread_over_lines_it_is_the_same(self, wrap: Any) -> None:
        outcome = read("claude", wrap(a_result()).encode() + b"\n", 0)
        assert (outcome.verdict, outcome.final_text, outcome.session_id) == (GOOD, "Done.", "s-1")

    @pytest.mark.parametrize(
        ("given", "verdict", "failure"),
        [
            ({"result": "Claude AI usage limit reached|1795468569"}, Verdict.LIMITED, "usage_limit"),
            ({"result": "You've hit your session limit · resets 9:16pm (UTC)"}, Verdict.LIMITED, "usage_limit"),
            ({"result": "5-hour limit reached ∙ resets 9pm"}, Verdict.LIMITED, "usage_limit"),
            ({"result": "I wrote tests for: usage limit reached, resets 9pm."}, GOOD, None),
            ({"is_error": True, "result": "Credit balance is too low", "api_error_status": 400}, Verdict.LIMITED, "quota"),
            ({"is_error": True, "result": "Not logged in · Please run /login"}, Verdict.FAILED, "not_logged_in"),
            ({"is_error": True, "api_error_status": 529, "result": "Repeated 529 Overloaded errors"}, Verdict.FAILED, "overloaded"),
            ({"is_error": True, "result": "Prompt is too long"}, Verdict.FAILED, "context_window"),
            ({"is_error": "yes"}, Verdict.FAILED, "cli_failed"),
            ({"subtype": "error_during_execution"}, Verdict.FAILED, "cli_failed"),
            ({"subtype": None, "is_error": None}, Verdict.FAILED, "cli_failed"),
            ({"is_error": True, "subtype": "error_during_execution", "terminal_reason": "aborted_tools"}, Verdict.KILLED, "killed"),
        ],
    )  # fmt: skip
    def test_what_a_result_hides_is_seen(self, given: dict[str, Any], verdict: Verdict, failure: str | None) -> None:
        outcome = read("claude", lines(a_result(**given)), 0 if verdict is GOOD else 1)
        assert (outcome.verdict, outcome.failure) == (verdict, failure)
        assert read("claude", lines(a_result(**given)), 0).verdict is verdict

    def test_refused_tools_end_with_1_and_no_error(self) -> None:
        denial = {"tool_name": "Write", "tool_use_id": "t", "tool_input": {"file_path": "a.py"}}
        told = lines(a_result(permission_denials=[denial]))
        assert read("claude", told, 1).failure == "denied"
        assert read("claude", told, 0).denied_actions == ("Write: a.py",)

    def test_a_warning_pauses_nothing(self) -> None:
        near = {"status": "allowed_warning", "resetsAt": 1800000000, "rateLimitType": "five_hour", "utilization": 0.91}
        told = lines({"type": "rate_limit_event", "rate_limit_info": near}, a_result())
        outcome = read("claude", told, 0)
        assert outcome.verdict is GOOD and outcome.resets_at is None and "91%" in (outcome.warning or "")

    def test_overage_that_reads_rejected_in_a_good_run_is_no_limit(self) -> None:
        info = {"status": "allowed", "isUsingOverage": False, "overageStatus": "rejected", "resetsAt": 1800000000}
        assert (
            read("claude", lines({"type": "rate_limit_event", "rate_limit_info": info}, a_result()), 0).verdict is GOOD
        )

    def test_a_limit_whose_result_was_cut_off_is_a_limit(self) -> None:
        whole = sample("claude-usage-limit-oauth-stream.jsonl").splitlines(keepends=True)
        outcome = read("claude", b"".join(whole[:-1]), 1)
        assert (outcome.verdict, outcome.resets_at) == (Verdict.LIMITED, "2026-11-23T21:16:09Z")

    def test_a_busy_server_is_not_the_plans_limit(self) -> None:
        busy = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "isUsingOverage": False}}
        said = "API Error: Server is temporarily limiting requests (not your usage limit) · mock: HTTP 429"
        outcome = read("claude", lines(busy, a_result(is_error=True, api_error_status=429, result=said)), 1)
        assert (outcome.verdict, outcome.failure) == (Verdict.LIMITED, "rate_limited")

    def test_work_that_goes_on_after_a_result_has_not_ended(self) -> None:
        more = {"type": "assistant", "message": {"id": "m", "model": "x", "content": [{"type": "text", "text": "And"}]}}
        assert read("claude", lines(a_result(), more), 0).verdict is Verdict.UNKNOWN

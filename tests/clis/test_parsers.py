"""What real CLIs printed, and what is read from it: whole, in pieces, or cut off."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.clis import catalog, json_stream
from app.clis.parser import Parser, Setting
from app.domain.failures import TABLE
from app.domain.run import Outcome, Usage, Verdict
from tests.clis.captured import RUNS, Told

SAMPLES = Path(__file__).parents[1] / "fixtures" / "clis"
NOW = datetime(2026, 11, 23, 20, 10, tzinfo=UTC)
EXITS = (0, 1, 2, 101, 129, 143, -15, None)
GOOD = Verdict.SUCCEEDED
JSONL = {name: told for name, told in RUNS.items() if not name.endswith(".txt")}
FAILURES = sorted(name for name, told in JSONL.items() if told.verdict != GOOD)
SUCCESSES = sorted(name for name, told in JSONL.items() if told.verdict == GOOD)


def parser_of(name: str, **setting: Any) -> Parser:
    kind = "raw" if name.endswith(".txt") else "codex-jsonl" if name.startswith("codex") else "claude-result"
    return catalog.make_parser(kind, Setting(now=NOW, **setting))


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def stderr_of(name: str) -> bytes:
    path = (SAMPLES / name).with_suffix(".stderr")
    return path.read_bytes() if path.exists() else b""


def read(name: str, stdout: bytes, exit_code: int | None, stderr: bytes = b"", **setting: Any) -> Outcome:
    parser = parser_of(name, **setting)
    parser.feed(stdout)
    return parser.finish(exit_code, stderr)


def lines(*told: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in told)


def test_every_captured_output_is_told_of() -> None:
    there = {path.name for path in SAMPLES.iterdir() if path.suffix != ".stderr" and "rollout" not in path.name}
    assert there == set(RUNS)


class TestCapturedOutputs:
    @pytest.mark.parametrize(("name", "told"), RUNS.items(), ids=list(RUNS))
    def test_are_read_as_what_they_were(self, name: str, told: Told) -> None:
        outcome = read(name, sample(name), told.exit_code, stderr_of(name))
        used = outcome.usage
        assert (outcome.verdict, outcome.failure, outcome.resets_at) == (told.verdict, told.failure, told.resets_at)
        assert (outcome.session_id or "")[:8] == (told.session or "")
        assert (used.input_tokens, used.cached_tokens, used.output_tokens) == told.used[:3]
        assert used.cost_usd == (told.used[3] if told.used[3] is None else pytest.approx(told.used[3]))
        assert bool(outcome.denied_actions) == told.denied

    @pytest.mark.parametrize("name", [name for name in FAILURES if not name.startswith("codex-0.36")])
    def test_a_failure_is_none_the_less_whatever_the_exit_code(self, name: str) -> None:
        outcomes = [read(name, sample(name), code, stderr_of(name)) for code in EXITS]
        assert GOOD not in {outcome.verdict for outcome in outcomes}
        assert {outcome.failure for outcome in outcomes} <= set(TABLE)

    @pytest.mark.parametrize("name", SUCCESSES)
    def test_a_success_needs_its_exit_code_too(self, name: str) -> None:
        assert {code for code in EXITS if read(name, sample(name), code).verdict is GOOD} == {0}

    @pytest.mark.parametrize("name", sorted(JSONL))
    def test_the_size_of_the_pieces_does_not_matter(self, name: str) -> None:
        whole, told = sample(name), RUNS[name]
        expected = read(name, whole, told.exit_code, stderr_of(name))
        for size in (1, 7, 64, 4096) if len(whole) < 3000 else (17, 4096):
            parser = parser_of(name)
            for at in range(0, len(whole), size):
                parser.feed(whole[at : at + size])
            assert parser.finish(told.exit_code, stderr_of(name)) == expected

    def test_finishing_leaves_the_parser_as_it_is(self) -> None:
        whole = sample("codex-say.jsonl")
        parser = parser_of("codex-say.jsonl")
        parser.feed(whole[:200])
        assert parser.finish(0).verdict is Verdict.UNKNOWN
        parser.feed(whole[200:])
        assert parser.finish(0).verdict is GOOD
        assert parser.finish(0).verdict is GOOD


class TestCutOutputs:
    def test_cut_at_any_byte_are_no_success(self) -> None:
        """With the kindest exit code there is. One parser hears a byte after the other and is asked before each."""
        for name in JSONL:
            whole, parser = sample(name).rstrip(), parser_of(name)
            for cut in range(len(whole)):
                outcome = parser.finish(0)
                parser.feed(whole[cut : cut + 1])
                assert outcome.verdict is not GOOD, (name, cut)
                if name in SUCCESSES:
                    assert outcome.verdict is Verdict.UNKNOWN and outcome.failure in ("cut_off", "unreadable"), (
                        name,
                        cut,
                    )
            assert parser.finish(0) == read(name, whole, 0), name

    @pytest.mark.parametrize("name", SUCCESSES)
    def test_the_last_word_counts_without_its_line_end(self, name: str) -> None:
        assert read(name, sample(name).rstrip(), 0).verdict is GOOD

    @given(st.sampled_from(sorted(RUNS)), st.data())
    @settings(max_examples=50, deadline=None, database=None)
    def test_a_piece_from_anywhere_in_any_chunks_never_raises(self, name: str, data: st.DataObject) -> None:
        whole = sample(name)
        start, end = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))
        parser = parser_of(name)
        chances = random.Random(data.draw(st.integers(0, 9)))
        while start < end:
            size = chances.randint(1, 5000)
            parser.feed(whole[start : min(end, start + size)])
            start += size
        outcome = parser.finish(data.draw(st.sampled_from(EXITS)), data.draw(st.binary(max_size=50)))
        assert outcome.verdict is not GOOD or name in SUCCESSES or name.endswith(".txt")

    def test_a_cut_array_still_names_its_session(self) -> None:
        result = {"type": "result", "subtype": "success", "is_error": False, "result": "Done."}
        array = json.dumps([{"type": "system", "session_id": "s-1"}, result]).encode()
        outcome = read("claude", array[:-5], 0)
        assert (outcome.verdict, outcome.failure, outcome.session_id) == (Verdict.UNKNOWN, "cut_off", "s-1")


class TestCodex:
    def test_tells_session_text_and_progress(self) -> None:
        parser = parser_of("codex-three-writes.jsonl")
        parser.feed(sample("codex-three-writes.jsonl"))
        seen = parser.progress()
        assert (seen.message, seen.files) == ("three files", [f"/srv/agent/repo/{name}.txt" for name in "abc"])
        parser = parser_of("codex-shell.jsonl")
        parser.feed(sample("codex-shell.jsonl")[:600])
        seen = parser.progress()
        assert seen.command and "echo from-shell" in seen.command and seen.session_id

    def test_of_a_resumed_thread_only_this_runs_tokens_count(self) -> None:
        outcome = read("codex", sample("codex-resume.jsonl"), 0, before=Usage(1200, 800, 42))
        assert outcome.usage == Usage(2400, 1600, 84) and outcome.session_usage == Usage(3600, 2400, 126)

    def test_counters_that_began_anew_count_as_they_are(self) -> None:
        outcome = read("codex", sample("codex-resume-after-limit.jsonl"), 0, before=Usage(5000, 800, 42))
        assert outcome.usage == Usage(1200, 0, 0)

    def test_the_moment_of_a_reset_is_exact_in_its_session_file(self) -> None:
        tail = sample("codex-usage-limit.rollout-tail.jsonl")
        outcome = read("codex", sample("codex-usage-limit.jsonl") + tail, 1)
        assert (outcome.verdict, outcome.resets_at) == (Verdict.LIMITED, "2026-11-23T21:07:31Z")

    def test_a_window_that_is_nearly_used_up_is_a_warning(self) -> None:
        window = {"used_percent": 91.0, "resets_at": 1800000000}
        near = {"type": "event_msg", "payload": {"type": "token_count", "rate_limits": {"primary": window}}}
        outcome = read("codex", sample("codex-say.jsonl") + lines(near), 0)
        assert outcome.verdict is GOOD and outcome.warning and "91 %" in outcome.warning

    @pytest.mark.parametrize(
        ("name", "exit_code", "verdict"),
        [
            ("codex-sigterm-after-write.jsonl", 143, Verdict.KILLED), ("codex-sigterm-after-write.jsonl", None, Verdict.KILLED),
            ("codex-sigint.jsonl", 1, Verdict.FAILED), ("codex-500.jsonl", 1, Verdict.FAILED),
            ("codex-usage-limit.jsonl", 1, Verdict.LIMITED), ("codex-missing-key.jsonl", 0, Verdict.FAILED),
        ],
    )  # fmt: skip
    def test_what_ends_before_its_turn_does_has_used_what_its_session_file_tells(
        self, name: str, exit_code: int | None, verdict: Verdict
    ) -> None:
        parser = parser_of(name, before=Usage(100_000, 50_000, 4_000))
        parser.feed(sample(name))
        parser.feed_session_line(json.dumps(self.noted(1_000_000, 450_000, 54_000)))
        outcome = parser.finish(exit_code, stderr_of(name))
        assert (outcome.verdict, outcome.usage) == (verdict, Usage(900_000, 400_000, 50_000))
        assert outcome.session_usage == Usage(1_000_000, 450_000, 54_000), "for the next run of the session"

    def test_a_session_file_that_tells_no_tokens_takes_none_away(self) -> None:
        empty = {"type": "event_msg", "payload": {"type": "token_count", "info": None, "rate_limits": {}}}
        told = sample("codex-say.jsonl") + lines(empty)
        assert read("codex", told, 0).usage == Usage(1200, 800, 42)

    def noted(self, *counters: int) -> dict[str, Any]:
        names = ("input_tokens", "cached_input_tokens", "output_tokens")
        info = {"total_token_usage": dict(zip(names, counters, strict=True)), "last_token_usage": {"input_tokens": 7}}
        return {"type": "event_msg", "payload": {"type": "token_count", "info": info, "rate_limits": {}}}

    @pytest.mark.parametrize(
        ("said", "failure", "resets_at"),
        [
            (
                "You’ve hit your usage limit. Upgrade to Pro or try again at 9:07 PM.",
                "usage_limit",
                "2026-11-23T21:07:00Z",
            ),
            (
                "You've hit your usage limit. ... try again at Nov 26th, 2026 3:50 AM.",
                "usage_limit",
                "2026-11-26T03:50:00Z",
            ),
            ("You've hit your usage limit. Try again in 1 hour.", "usage_limit", "2026-11-23T21:10:00Z"),
            ("Quota exceeded. Check your plan and billing details.", "quota", None),
            ("exceeded retry limit, last status: 429 Too Many Requests", "rate_limited", None),
        ],
    )
    def test_a_limit_is_known_by_its_words(self, said: str, failure: str, resets_at: str | None) -> None:
        for told in (
            {"type": "turn.failed", "error": {"message": said}},
            {"id": "0", "msg": {"type": "error", "message": said}},
        ):
            for exit_code in (0, 1):
                outcome = read("codex", lines(told), exit_code)
                assert (outcome.verdict, outcome.failure, outcome.resets_at) == (Verdict.LIMITED, failure, resets_at)

    @pytest.mark.parametrize(
        ("said", "failure"),
        [
            ("Codex ran out of room in the model's context window. Start a new thread.", "context_window"),
            ("Selected model is at capacity. Please try a different model.", "overloaded"),
            ("unexpected status 503 Service Unavailable: x", "overloaded"),
            ('{"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}', "bad_request"),
            ('{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}', "quota"),
            ("something nobody has seen", "cli_failed"),
        ],
    )
    def test_a_failure_is_named(self, said: str, failure: str) -> None:
        assert read("codex", lines({"type": "turn.failed", "error": {"message": said}}), 1).failure == failure

    def test_the_agent_talking_of_limits_is_no_limit(self) -> None:
        talk = {"type": "item.completed", "item": {"type": "agent_message", "text": "You hit your usage limit"}}
        assert read("codex", lines(talk, {"type": "turn.completed", "usage": {}}), 0).verdict is GOOD

    def test_the_last_of_several_turns_decides(self) -> None:
        failed, completed = {"type": "turn.failed", "error": {"message": "x"}}, {"type": "turn.completed"}
        assert read("codex", lines(completed, failed), 0).verdict is Verdict.FAILED
        assert read("codex", lines(failed, completed), 0).verdict is GOOD
        assert read("codex", lines(completed, {"type": "turn.started"}), 0).verdict is Verdict.UNKNOWN

    def test_names_of_early_builds_are_known(self) -> None:
        item = {"type": "item.completed", "item": {"item_type": "assistant_message", "text": "Done."}}
        assert read("codex", lines(item, {"type": "turn.completed"}), 0).final_text == "Done."

    def test_a_refused_write_shows(self) -> None:
        stderr = b"ERROR: patch rejected: writing is blocked by read-only sandbox; rejected by user approval settings\n"
        outcome = read("codex", sample("codex-say.jsonl"), 0, stderr)
        assert outcome.verdict is GOOD and len(outcome.denied_actions) == 1
        declined = {"type": "command_execution", "command": "rm x", "status": "declined"}
        outcome = read("codex", lines({"type": "item.completed", "item": declined}, {"type": "turn.completed"}), 0)
        assert outcome.denied_actions == ("command: rm x",)

    def test_an_unreachable_server_that_was_ended_by_us_was_killed(self) -> None:
        waiting = {"type": "error", "message": "Reconnecting... waiting for network (Connection failed: x)"}
        parser = parser_of("codex")
        parser.feed(lines({"type": "thread.started", "thread_id": "t"}, waiting))
        assert parser.finish(143).verdict is Verdict.KILLED
        assert "waiting for network" in (parser.progress().trouble or "")


def a_result(**given: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, "result": "Done.", "session_id": "s-1"} | given


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


class TestRubbish:
    @pytest.mark.parametrize("kind", ["codex-jsonl", "claude-result", "json-path"])
    @pytest.mark.parametrize(
        "stdout",
        [b"", b"\n\n", b"not json", b"{", b'{"type":', b"[]", b'"turn.completed"', b"{}\n{}\n", b"\xff\xfe{\x00", b"{\x00\x00\x00",
         b'{"type":"item.completed","item":null}', b'{"type":"thread.started"}', b'{"type":["result"]}', b'{"type":"result"}',
         b'{"a":' * 100_000, b'{"a":1' + b"1" * 10_000 + b"}", b"[" * 200_000, b"[\n{\n[\n", b'{"type":"assistant","message":[1]}',
         b'{"type":"user","tool_result_meta":5}', b'{"msg":{"type":{}}}'],
        ids=lambda stdout: repr(stdout[:30]),
    )  # fmt: skip
    def test_is_never_a_success(self, kind: str, stdout: bytes) -> None:
        for exit_code in EXITS:
            parser = catalog.make_parser(
                kind, Setting(reading={"end": [{"type": "result"}], "good": [{"exitCode": 0}]})
            )
            parser.feed(stdout)
            assert parser.finish(exit_code).verdict is not GOOD
            json.dumps(parser.progress().as_json())

    @given(
        st.binary(max_size=200), st.sampled_from(EXITS), st.sampled_from(["codex-say.jsonl", "claude-stream-say.jsonl"])
    )
    @settings(max_examples=100, deadline=None, database=None)
    def test_before_the_output_does_not_matter(self, noise: bytes, exit_code: int | None, name: str) -> None:
        outcome = read(name, noise + b"\n" + sample(name), exit_code)
        assert (outcome.verdict is GOOD) == (exit_code == 0)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "type",
                            "item",
                            "msg",
                            "message",
                            "usage",
                            "error",
                            "result",
                            "is_error",
                            "subtype",
                            "content",
                            "text",
                            "input_tokens",
                            "payload",
                            "rate_limit_info",
                            "permission_denials",
                        ]
                    ),
                    inner,
                    max_size=5,
                )
            ),
        )
    )
    @settings(max_examples=25, deadline=None, database=None)
    def test_of_any_shape_raises_nothing(self, value: Any) -> None:
        for kind in catalog.parsers():
            parser = catalog.make_parser(kind, Setting())
            for type_ in (
                "turn.failed",
                "item.completed",
                "result",
                "assistant",
                "user",
                "rate_limit_event",
                "event_msg",
            ):
                parser.feed(
                    lines(
                        value,
                        {
                            "type": type_,
                            "item": value,
                            "message": value,
                            "usage": value,
                            "error": value,
                            "payload": value,
                        },
                    )
                )
            parser.finish(1)
            parser.progress().as_json()

    def test_a_line_without_end_eats_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(json_stream, "LONGEST", 10_000)
        parser = parser_of("codex")
        for _ in range(100):
            parser.feed(b'{"x":"' + b"y" * 1000)
        assert len(parser._events._line) <= 10_000  # type: ignore[attr-defined]
        parser.feed(b'"}\n' + sample("codex-say.jsonl"))
        assert parser.finish(0).verdict is GOOD


class TestRaw:
    @pytest.mark.parametrize(
        ("exit_code", "verdict", "failure"),
        [(0, GOOD, None), (3, Verdict.FAILED, "cli_failed"), (None, Verdict.KILLED, "killed")],
    )
    def test_only_the_exit_code_speaks(self, exit_code: int | None, verdict: Verdict, failure: str | None) -> None:
        outcome = read("x.txt", b"done\n", exit_code)
        assert (outcome.verdict, outcome.failure, outcome.final_text) == (verdict, failure, "done")

    @pytest.mark.parametrize(
        ("printed", "shown"),
        [
            (b"hello\n" + b"\n" * 5000, "hello"),
            (b"one\nERROR: the end " + "x\u00e9".encode() * 4000, "ERROR: the end"),
            (b"10 %\r20 %\r30 %\r", "30 %"),
            (b"\n \n", None),
        ],
        ids=["blank lines behind it", "a long last line", "a bar that is drawn again", "nothing"],
    )
    def test_its_last_line_that_says_something_is_shown(self, printed: bytes, shown: str | None) -> None:
        parser = parser_of("x.txt")
        parser.feed(printed)
        message = parser.progress().message
        assert message == shown or (shown and message and message.startswith(shown))

    def test_of_a_failure_its_last_words_are_read(self) -> None:
        outcome = read("x.txt", b"working\n", 1, b"Error: usage limit reached, try again in 2 hours\n")
        assert (outcome.verdict, outcome.resets_at) == (Verdict.LIMITED, "2026-11-23T22:10:00Z")

    def test_the_last_lines_are_its_text(self) -> None:
        text = read("x.txt", b"x" * 100_000 + b"\nthe end\n", 0).final_text
        assert text and text.endswith("the end") and len(text) <= 4000


# Final outputs of CLIs that were not captured, in the shapes their documentation gives.
OTHERS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "gemini": ([{"response": "Done.", "stats": {"models": {"a": {"tokens": {"prompt": 10, "cached": 4, "candidates": 2}},
                "b": {"tokens": {"prompt": 1, "cached": 0, "candidates": 1}}}}}], {"text": "Done.", "usage": Usage(11, 4, 3)}),
    "opencode": ([{"type": "step_start", "sessionID": "ses_1"}, {"type": "text", "sessionID": "ses_1", "part": {"text": "Done."}},
                  {"type": "step_finish", "sessionID": "ses_1", "part": {"reason": "tool-calls", "tokens": {"input": 5, "output": 1, "cache": {"read": 2}}, "cost": 0.25}},
                  {"type": "step_start", "sessionID": "ses_1"},
                  {"type": "step_finish", "sessionID": "ses_1", "part": {"reason": "stop", "tokens": {"input": 5, "output": 1, "cache": {"read": 2}}, "cost": 0.5}}],
                 {"text": "Done.", "session": "ses_1", "usage": Usage(14, 4, 2, 0.75)}),
    "qwen": ([{"type": "system", "subtype": "init", "session_id": "q"}, a_result(session_id="q", usage={"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 1})],
             {"text": "Done.", "session": "q", "usage": Usage(9, 3, 1)}),
    "cursor": ([a_result(session_id="c", duration_ms=5, request_id="r")], {"text": "Done.", "session": "c", "usage": Usage()}),
    "amp": ([a_result(session_id="T-1", num_turns=1, duration_ms=5)], {"text": "Done.", "session": "T-1", "usage": Usage()}),
    "copilot": ([{"type": "assistant.message", "data": {"content": "Done."}}, {"type": "result", "sessionId": "p", "exitCode": 0, "usage": {"premiumRequests": 1}}],
                {"text": "Done.", "session": "p", "usage": Usage()}),
    "goose": ([{"messages": [{"role": "user", "content": [{"type": "text", "text": "Do it."}]}, {"role": "assistant", "content": [{"type": "text", "text": "Done."}]}],
                "metadata": {"total_tokens": 12, "status": "completed"}}], {"text": "Done.", "usage": Usage()}),
}  # fmt: skip
BAD: dict[str, tuple[list[Any], str]] = {
    "gemini": ([{"error": {"type": "ApiError", "message": "[API Error: quota exceeded]", "code": 429}}], "quota"),
    "opencode": (
        [{"type": "error", "sessionID": "s", "error": {"name": "APIError", "data": {"message": "Unauthorized"}}}],
        "auth",
    ),
    "qwen": ([a_result(is_error=True, subtype="error_max_turns", result=None)], "max_turns"),
    "amp": ([a_result(is_error=True, subtype="error_during_execution", result=None, error="overloaded")], "overloaded"),
    "copilot": ([{"type": "result", "sessionId": "p", "exitCode": 1}], "cli_failed"),
    "goose": ([{"messages": [], "metadata": {"status": "failed", "error": "rate limit"}}], "rate_limited"),
}


def read_as(cli: str, told: bytes, exit_code: int) -> Outcome:
    template = catalog.template_of(cli)
    parser = catalog.make_parser(template.parser, Setting(now=NOW, reading=template.reading))
    for at in range(0, len(told), 11):
        parser.feed(told[at : at + 11])
    return parser.finish(exit_code)


class TestOtherClis:
    @pytest.mark.parametrize("cli", OTHERS)
    def test_a_success_is_read(self, cli: str) -> None:
        told, expected = OTHERS[cli]
        outcome = read_as(cli, lines(*told), 0)
        assert (outcome.verdict, outcome.final_text, outcome.session_id) == (
            GOOD,
            expected["text"],
            expected.get("session"),
        )
        assert outcome.usage == expected["usage"]
        assert read_as(cli, lines(*told), 1).verdict is Verdict.FAILED

    @pytest.mark.parametrize("cli", OTHERS)
    def test_cut_anywhere_it_is_none(self, cli: str) -> None:
        whole = lines(*OTHERS[cli][0]).rstrip()
        assert GOOD not in {read_as(cli, whole[:cut], 0).verdict for cut in range(len(whole))}

    @pytest.mark.parametrize("cli", BAD)
    def test_a_failure_is_named(self, cli: str) -> None:
        told, failure = BAD[cli]
        for exit_code in (0, 1):
            outcome = read_as(cli, lines(*told), exit_code)
            assert outcome.verdict in (Verdict.FAILED, Verdict.LIMITED) and outcome.failure == failure

    def test_what_gemini_prints_over_many_lines_is_one_answer(self) -> None:
        assert read_as("gemini", json.dumps(OTHERS["gemini"][0][0], indent=2).encode(), 0).final_text == "Done."

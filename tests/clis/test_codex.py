"""The output of Codex is parsed into an outcome, with what its session file adds."""

import json
from typing import Any

import pytest

from app.domain.run import Usage, Verdict
from tests.clis.parse_captured import GOOD, lines, parser_of, read, sample, stderr_of


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

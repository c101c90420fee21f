"""What real CLIs printed, and what is read from it, whole or cut off."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.run import Usage, Verdict
from workers.clis.codex import parser as codex
from workers.clis.raw import parser as raw

SAMPLES = Path(__file__).parents[1] / "fixtures" / "clis"
GOOD, BAD, LIMIT, KILLED, UNKNOWN = Verdict.SUCCEEDED, Verdict.FAILED, Verdict.LIMITED, Verdict.KILLED, Verdict.UNKNOWN

# Each captured output, the exit code it came with, and how that run really ended.
RUNS = {
    "0.36.0-shell": (0, UNKNOWN), "400": (1, BAD), "401": (1, BAD), "403": (1, BAD), "500": (1, BAD),
    "500-no-retries": (1, BAD), "bad-flag": (2, BAD), "bypass-write": (0, GOOD), "code-mode-shell": (0, GOOD),
    "code-mode-write": (0, GOOD), "commit": (0, GOOD), "cut-no-retries": (1, BAD), "cut-once": (0, GOOD),
    "empty-stdin": (1, BAD), "ephemeral": (0, GOOD), "flaky": (0, GOOD), "missing-key": (1, BAD), "net": (0, GOOD),
    "no-git": (1, BAD), "no-git-skip": (0, GOOD), "output-schema": (0, GOOD), "output-schema-bad": (0, GOOD),
    "prompt-arg-and-stdin": (0, GOOD), "rate-limit": (0, GOOD), "read-only-shell": (0, GOOD), "resume": (0, GOOD),
    "resume-after-kill": (0, GOOD), "resume-after-limit": (0, GOOD), "resume-other-cwd": (0, GOOD),
    "resume-unknown": (1, BAD), "say": (0, GOOD), "shell": (0, GOOD), "shell-fail": (0, GOOD), "sighup": (129, KILLED),
    "sigint": (1, BAD), "sigterm": (143, KILLED), "sigterm-after-write": (143, KILLED), "stream-error": (1, BAD),
    "three-writes": (0, GOOD), "unknown-model": (0, GOOD), "usage-limit": (1, LIMIT), "user-shell": (0, GOOD),
    "user-write": (0, GOOD), "write-file": (0, GOOD),
}  # fmt: skip
EXITS = (0, 1, 2, 101, 129, 143, None)
FAILURES = [name for name, (_, verdict) in RUNS.items() if verdict is not GOOD]
SUCCESSES = [name for name, (_, verdict) in RUNS.items() if verdict is GOOD]


def sample(name: str) -> bytes:
    return (SAMPLES / f"codex-{name}.jsonl").read_bytes()


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def test_every_captured_output_is_told_of_here() -> None:
    assert {path.name for path in SAMPLES.glob("codex-*.jsonl")} == {f"codex-{name}.jsonl" for name in RUNS}


class TestCapturedOutputs:
    @pytest.mark.parametrize(("name", "exit_code", "verdict"), [(name, *ended) for name, ended in RUNS.items()])
    def test_are_read_as_what_they_were(self, name: str, exit_code: int, verdict: Verdict) -> None:
        assert codex.parse(sample(name), exit_code).verdict is verdict

    @pytest.mark.parametrize("name", FAILURES)
    def test_a_failure_is_no_success_whatever_the_exit_code(self, name: str) -> None:
        outcomes = [codex.parse(sample(name), code) for code in EXITS]
        assert GOOD not in {outcome.verdict for outcome in outcomes}
        assert all(outcome.failure for outcome in outcomes)

    @pytest.mark.parametrize("name", SUCCESSES)
    def test_a_success_needs_its_exit_code_too(self, name: str) -> None:
        assert {code for code in EXITS if codex.parse(sample(name), code).verdict is GOOD} == {0}

    @pytest.mark.parametrize("name", FAILURES)
    def test_a_failure_cut_at_any_byte_is_no_success(self, name: str) -> None:
        whole = sample(name)
        assert GOOD not in {
            codex.parse(whole[:cut], code).verdict for cut in range(0, len(whole), 7) for code in (0, 1, None)
        }

    @pytest.mark.parametrize("name", SUCCESSES)
    def test_a_success_cut_before_its_last_word_is_no_success(self, name: str) -> None:
        whole = sample(name).rstrip()
        assert GOOD not in {codex.parse(whole[:cut], 0).verdict for cut in [*range(0, len(whole), 13), len(whole) - 1]}

    @pytest.mark.parametrize("name", SUCCESSES)
    def test_the_last_word_counts_without_its_line_end(self, name: str) -> None:
        assert codex.parse(sample(name).rstrip(), 0).verdict is GOOD

    @given(st.sampled_from(sorted(RUNS)), st.data())
    @settings(max_examples=100, deadline=None, database=None)
    def test_a_piece_from_anywhere_never_raises(self, name: str, data: st.DataObject) -> None:
        whole = sample(name)
        start, end = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))
        outcome = codex.parse(whole[start:end], data.draw(st.sampled_from(EXITS)))
        assert outcome.verdict is not GOOD or name in SUCCESSES


class TestWhatIsTakenFromThem:
    def test_session_text_and_tokens(self) -> None:
        outcome = codex.parse(sample("say"), 0)
        assert outcome.session_id == "01a20a04-7e35-7640-bfd0-f334920ee58a"
        assert outcome.final_text == "All done: nothing had to be changed."
        assert outcome.usage == Usage(1200, 800, 42)

    def test_a_run_that_was_killed_still_names_its_session(self) -> None:
        assert codex.parse(sample("sigterm"), 143).session_id == "01a20a05-b95f-7412-9127-7a4d42a9daaa"

    def test_a_failure_tells_what_was_said(self) -> None:
        outcome = codex.parse(sample("missing-key"), 1)
        assert (outcome.final_text, outcome.failure) == ("Missing environment variable: `MOCK_KEY`.", "cli_failed")

    @pytest.mark.parametrize(
        "said",
        ["You’ve hit your usage limit. Try again at 9:07 PM.", "You've hit your usage limit.", "Quota exceeded."],
    )
    def test_a_limit_is_known_by_its_words(self, said: str) -> None:
        assert codex.parse(lines({"type": "turn.failed", "error": {"message": said}}), 1).verdict is LIMIT

    def test_the_agent_talking_of_limits_is_no_limit(self) -> None:
        talk = {"type": "item.completed", "item": {"type": "agent_message", "text": "You hit your usage limit"}}
        assert codex.parse(lines(talk, {"type": "turn.completed", "usage": {}}), 0).verdict is GOOD

    def test_the_last_of_several_turns_decides(self) -> None:
        failed, completed = {"type": "turn.failed", "error": {"message": "x"}}, {"type": "turn.completed"}
        assert codex.parse(lines(completed, failed), 0).verdict is BAD
        assert codex.parse(lines(failed, completed), 0).verdict is GOOD

    def test_an_old_session_and_an_unknown_model_are_not_fatal(self) -> None:
        assert codex.parse(sample("unknown-model"), 0).final_text == "All done: nothing had to be changed."


class TestRubbish:
    @pytest.mark.parametrize(
        "stdout",
        [b"", b"\n\n", b"not json", b"{", b'{"type":', b"[]", b'"turn.completed"', b"{}\n{}\n", b"\xff\xfe{\x00", b"{\x00\x00\x00",
         b'{"type":"item.completed","item":null}', b'{"type":"item.completed"}', b'{"type":"thread.started"}',
         b'{"a":' * 100_000, b'{"a":1' + b"1" * 10_000 + b"}"],
        ids=lambda stdout: repr(stdout[:30]),
    )  # fmt: skip
    @pytest.mark.parametrize("exit_code", EXITS)
    def test_is_never_a_success(self, stdout: bytes, exit_code: int | None) -> None:
        outcome = codex.parse(stdout, exit_code)
        assert outcome.verdict in (UNKNOWN, BAD, KILLED) and outcome.failure == "unreadable"

    @given(st.binary(max_size=200), st.sampled_from(EXITS))
    @settings(max_examples=100, deadline=None, database=None)
    def test_before_the_last_word_does_not_matter(self, noise: bytes, exit_code: int | None) -> None:
        outcome = codex.parse(noise + b"\n" + sample("say"), exit_code)
        assert (outcome.verdict is GOOD) == (exit_code == 0)

    @pytest.mark.parametrize("value", [None, "x", 1, [], {}, [{}]])
    def test_within_the_last_word_is_no_reason_to_stumble(self, value: Any) -> None:
        assert codex.parse(lines({"type": "turn.failed", "error": value}), 1).verdict is BAD
        assert codex.parse(lines({"type": "turn.completed", "usage": value}), 0).usage == Usage()


class TestRaw:
    @pytest.mark.parametrize(
        ("exit_code", "verdict", "failure"), [(0, GOOD, None), (3, BAD, "cli_failed"), (None, KILLED, None)]
    )
    def test_only_the_exit_code_speaks(self, exit_code: int | None, verdict: Verdict, failure: str | None) -> None:
        outcome = raw.parse(b"done\n", exit_code)
        assert (outcome.verdict, outcome.failure, outcome.final_text) == (verdict, failure, "done")

    @given(st.binary(max_size=300), st.sampled_from(EXITS))
    @settings(max_examples=50, deadline=None, database=None)
    def test_any_bytes_are_text(self, stdout: bytes, exit_code: int | None) -> None:
        assert (raw.parse(stdout, exit_code).verdict is GOOD) == (exit_code == 0)

    def test_the_last_lines_are_its_text(self) -> None:
        text = raw.parse(b"x" * 10_000 + b"\nthe end\n", 0).final_text
        assert text and text.endswith("the end") and len(text) <= raw.LONGEST

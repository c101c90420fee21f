"""Captured outputs of real CLIs are read as what they were: whole, in pieces, or cut off."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.failures import TABLE
from app.domain.run import Verdict
from tests.clis.expected_outcomes import RUNS, Told
from tests.clis.parse_captured import (
    EXITS,
    FAILURES,
    GOOD,
    JSONL,
    SAMPLES,
    SUCCESSES,
    parser_of,
    read,
    sample,
    stderr_of,
)


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
        """With exit code 0. One parser gets one byte at a time; its outcome is read before each."""
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

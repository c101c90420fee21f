"""Any CLI is judged by its exit code; its last lines are its text."""

import pytest

from app.domain.run import Verdict
from tests.clis.parse_captured import GOOD, parser_of, read


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

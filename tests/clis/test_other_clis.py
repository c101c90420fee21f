"""CLIs that were not captured, in the shapes that their documentation gives."""

import json
from typing import Any

import pytest

from app.clis import catalog
from app.clis.parser import Setting
from app.domain.run import Outcome, Usage, Verdict
from tests.clis.parse_captured import GOOD, NOW, a_result, lines

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

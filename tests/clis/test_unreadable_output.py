"""Output of any shape raises nothing, is never a success and costs no memory."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.clis import catalog
from app.clis.parser import Setting
from tests.clis.parse_captured import EXITS, GOOD, lines, parser_of, read, sample


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

    def test_a_line_without_end_eats_no_memory(self) -> None:
        parser = parser_of("codex", longest_line=10_000)
        for _ in range(100):
            parser.feed(b'{"x":"' + b"y" * 1000)
        assert len(parser._events._line) <= 10_000  # type: ignore[attr-defined]
        parser.feed(b'"}\n' + sample("codex-say.jsonl"))
        assert parser.finish(0).verdict is GOOD

"""Checks the parser of the host's answers: foreign output first, then a JSON line, then the bytes of logs."""

import json

import pytest

from workers import protocol
from workers.errors import Unreachable

RAW = b"one\ntwo\n\x00\xff"


def said(**given: object) -> bytes:
    pieces = {"stdout": {"offset": 5, "size": 12, "at": 0, "length": 7}, "stderr": {"at": 7, "length": 3}}
    told = {"runs": {"t.1": {"known": True, **pieces}, "t.2": {"known": False}}, **given}
    return json.dumps({"bytes": len(RAW), **told}).encode() + b"\n" + RAW


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("before", [b"", b"welcome to {this} host\n", b"no end of line"])
def test_each_log_gets_its_bytes(step: int, before: bytes) -> None:
    answer, whole = protocol.Answer(10_000), before + said()
    for at in range(0, len(whole), step):
        assert not answer.is_whole
        answer.feed(whole[at : at + step])
    runs = answer.as_json()["runs"]
    assert (runs["t.1"]["stdout"]["data"], runs["t.1"]["stderr"]["data"]) == (RAW[:7], RAW[7:])
    assert runs["t.2"] == {"known": False}


def test_output_without_a_whole_answer_is_none() -> None:
    assert protocol.parse(said()[:-1], 10_000) is None
    assert protocol.parse(b"bash: python3: not found\n", 10_000) is None


@pytest.mark.parametrize("text", [b'{"bytes": 1, oh\n', b'{"bytes": "x"}\n', said(error="x" * 10_000)])
def test_an_answer_that_is_invalid_or_too_long_is_refused(text: bytes) -> None:
    with pytest.raises(Unreachable):
        protocol.parse(text, 10_000)

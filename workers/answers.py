"""How a supervisor is asked and how it answers: a line of JSON, and raw bytes behind it where it speaks of logs."""

import json
from typing import Any

from workers.away import Unreachable

Json = dict[str, Any]
BEGINS = b'{"bytes": '  # what comes before that was said by somebody else: a shell's profile, say
STREAMS = ("stdout", "stderr")


def frame(verb: str, request: bytes) -> bytes:
    """A request to a supervisor that stays on the line."""
    return f"{verb} {len(request)}\n".encode() + request


class Answer:
    """An answer as it comes in, of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._said, self._told = most, bytearray(), None  # type: int, bytearray, Json | None
        self._raw_at = self._raw = 0

    @property
    def said(self) -> bytes:
        """All of it so far."""
        return bytes(self._said)

    @property
    def is_whole(self) -> bool:
        return self._told is not None and len(self._said) >= self._raw_at + self._raw

    def feed(self, data: bytes) -> None:
        """Raises Unreachable where it is too long, or no answer."""
        self._said += data
        if len(self._said) > self._most:
            raise Unreachable(f"its answer is longer than {self._most} bytes")
        if self._told is None:
            self._read_line()

    def told(self) -> Json:
        """The whole answer, the bytes of each log as its `data`."""
        told: Json = self._told or {}
        for run in (told.get("runs") or {}).values():
            for piece in (run[name] for name in STREAMS if name in run):
                begin = self._raw_at + piece["at"]
                piece["data"] = bytes(memoryview(self._said)[begin : begin + piece["length"]])
        return told

    def _read_line(self) -> None:
        begin = self._said.find(BEGINS)
        end = self._said.find(b"\n", begin)
        if begin < 0 or end < 0:
            return
        try:
            told = json.loads(self._said[begin:end])
            self._raw_at, self._raw = end + 1, int(told.pop("bytes"))
        except ValueError as error:
            raise Unreachable(f"its answer cannot be read: {error}") from error
        self._told = told


def read(said: bytes, most: int) -> Json | None:
    """An answer that is here as far as it came; None where that is not all of it. Raises Unreachable."""
    answer = Answer(most)
    answer.feed(said)
    return answer.told() if answer.is_whole else None

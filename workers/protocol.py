"""How a supervisor is asked and how it answers: a line of JSON, and raw bytes behind it where it speaks of logs."""

import json
from typing import Any

from workers.errors import Unreachable

Json = dict[str, Any]
BEGINS = b'{"bytes": '  # what comes before that was said by somebody else: a shell's profile, say
STREAMS = ("stdout", "stderr")


def frame(verb: str, request: bytes) -> bytes:
    """A request to a supervisor that stays on the line."""
    return f"{verb} {len(request)}\n".encode() + request


class Answer:
    """An answer as it comes in, of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._begun, self._told = bytearray(), None  # type: bytearray, Json | None
        self._raw: list[bytes] = []  # joined once: there may be megabytes
        self._missing = 0

    @property
    def said(self) -> bytes:
        """All of it so far, of one that is not known to be an answer yet."""
        return bytes(self._begun)

    @property
    def is_whole(self) -> bool:
        return self._told is not None and self._missing <= 0

    def feed(self, data: bytes) -> None:
        """Raises Unreachable where it is too long, or no answer."""
        self._size += len(data)
        if self._size > self._most:
            raise Unreachable(f"its answer is longer than {self._most} bytes")
        if self._told is None:
            self._begun += data
            data = self._read_line()
        self._raw.append(data)
        self._missing -= len(data)

    def told(self) -> Json:
        """The whole answer, the bytes of each log as its `data`."""
        told, raw = self._told or {}, b"".join(self._raw)
        for run in (told.get("runs") or {}).values():
            for piece in (run[name] for name in STREAMS if name in run):
                piece["data"] = raw[piece["at"] : piece["at"] + piece["length"]]
        return told

    def _read_line(self) -> bytes:
        """What is here of the raw bytes behind the line, once that is whole."""
        begin = self._begun.find(BEGINS)
        end = self._begun.find(b"\n", begin)
        if begin < 0 or end < 0:
            return b""
        try:
            told = json.loads(self._begun[begin:end])
            self._missing = int(told.pop("bytes"))
        except ValueError as error:
            raise Unreachable(f"its answer cannot be read: {error}") from error
        self._told = told
        return bytes(self._begun[end + 1 :])


def read(said: bytes, most: int) -> Json | None:
    """An answer that is here as far as it came; None where that is not all of it. Raises Unreachable."""
    answer = Answer(most)
    answer.feed(said)
    return answer.told() if answer.is_whole else None

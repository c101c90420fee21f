"""Protocol of the supervisor: a framed request of JSON, an answer of one JSON line with the bytes of logs behind it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.errors import Unreachable
from workers.supervisor_messages import PIECES, RunAnswer, SupervisorAnswer

ANSWER_BEGINS = b'{"bytes": '  # output before it comes from others: a shell's profile, say
STREAMS: tuple[str, ...] = PIECES
MOST_BYTES = 64 << 20  # of one answer: a poll brings a piece of each log


def frame(verb: str, request: bytes) -> bytes:
    """A request to a supervisor that serves several: a line `VERB LENGTH`, then the JSON."""
    return f"{verb} {len(request)}\n".encode() + request


class Answer:
    """Collects an answer of at most `most` bytes as it arrives."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._head = bytearray()
        self._json: SupervisorAnswer | None = None
        self._raw: list[bytes] = []  # joined once: there may be megabytes
        self._missing = 0

    @property
    def received(self) -> bytes:
        """The bytes up to the end of the JSON line, or so far: what was printed instead of an answer."""
        return bytes(self._head)

    @property
    def is_whole(self) -> bool:
        return self._json is not None and self._missing <= 0

    def feed(self, data: bytes) -> None:
        """Add bytes. Raises Unreachable if the answer is too long or cannot be read."""
        self._size += len(data)
        if self._size > self._most:
            raise Unreachable(f"its answer is longer than {self._most} bytes")
        if self._json is None:
            self._head += data
            data = self._parse_line()
        self._raw.append(data)
        self._missing -= len(data)

    def as_json(self) -> SupervisorAnswer:
        """The whole answer. Each log piece has its bytes as `data`."""
        answer: SupervisorAnswer = self._json or {}
        raw = b"".join(self._raw)
        for run in (answer.get("runs") or {}).values():
            for piece in (run[name] for name in PIECES if name in run):
                piece["data"] = raw[piece["at"] : piece["at"] + piece["length"]]
        return answer

    def _parse_line(self) -> bytes:
        """Parse the JSON line once it is whole; returns the raw bytes that follow it so far."""
        begin = self._head.find(ANSWER_BEGINS)
        end = self._head.find(b"\n", begin)
        if begin < 0 or end < 0:
            return b""
        try:
            answer = json.loads(self._head[begin:end])
            self._missing = int(answer.pop("bytes"))
        except ValueError as error:
            raise Unreachable(f"its answer cannot be read: {error}") from error
        self._json = answer
        return bytes(self._head[end + 1 :])


def parse(output: bytes, most: int = MOST_BYTES) -> SupervisorAnswer | None:
    """The answer in the whole output of a command; None if it is not whole. Raises Unreachable."""
    answer = Answer(most)
    answer.feed(output)
    return answer.as_json() if answer.is_whole else None


@dataclass(frozen=True)
class LogPiece:
    """Bytes of a run's log, from `offset`; `size` is the size of the whole log on the host."""

    offset: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    @property
    def has_more(self) -> bool:
        """True if the log goes on after this piece."""
        return bool(self.data) and self.end < self.size


@dataclass(frozen=True)
class RunStatus:
    """What a host says of one run. A run that the host does not know has no logs and no result."""

    is_known: bool
    step: str | None = None  # prepare, agent, validate, deliver
    result: Mapping[str, Any] | None = None  # once it has ended
    heartbeat_age: float = 0.0  # seconds
    session_notes: str | None = None  # what the CLI wrote to its session file
    logs: Mapping[str, LogPiece] = field(default_factory=dict)  # by stream

    @property
    def has_more(self) -> bool:
        """True if the answer did not bring the logs to their end."""
        return any(piece.has_more for piece in self.logs.values())

    def is_final(self, stream: str) -> bool:
        """True if the piece is the end of the log, and the run has ended."""
        piece = self.logs[stream]
        return bool(self.result) and piece.end >= piece.size

    @classmethod
    def from_json(cls, answer: RunAnswer) -> "RunStatus":
        pieces = {name: answer[name] for name in PIECES if name in answer}
        return cls(
            is_known=bool(answer.get("known")),
            step=answer.get("step"),
            result=answer.get("result"),
            heartbeat_age=answer.get("beat_age") or 0.0,
            session_notes=answer.get("noted"),
            logs={name: LogPiece(piece["offset"], piece["data"], piece["size"]) for name, piece in pieces.items()},
        )


@dataclass(frozen=True)
class PollAnswer:
    """What a host says of its runs, by name."""

    runs: Mapping[str, RunStatus]
    disk_free: int | None = None  # bytes

    @classmethod
    def from_json(cls, answer: SupervisorAnswer) -> "PollAnswer":
        runs = {name: RunStatus.from_json(run) for name, run in answer["runs"].items()}
        return cls(runs, answer.get("disk_free"))

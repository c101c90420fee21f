"""Writes the output of programs to log files of bounded size, and reads them for a poll."""

from __future__ import annotations

import json
import os
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import file_size, open_log, remove_file

if TYPE_CHECKING:
    from workers.supervisor.constants import Json


class Log:
    """The log of one output stream: its beginning is kept whole, of the rest the newest pieces.

    `stdout.log` holds the bytes from 0. When it is full, `stdout.log.<offset>` continues it, then the next piece, and
    the oldest pieces are deleted. The offset in the name is that of the first byte, so offsets stay true.
    """

    PIECES = 8
    END_BYTES = 4000

    def __init__(self, path: str, limits: Json, final_event: FinalEvent | None = None) -> None:
        self.path, self.final_event = path, final_event
        self.size, self.end = 0, b""  # bytes written so far, and the last of them
        self._piece_bytes = max(1, limits["log_tail_bytes"] // self.PIECES)
        self._pieces: list[str] = []
        self._fd, self._room = open_log(path), limits["log_head_bytes"]

    def write(self, data: bytes) -> None:
        self.end = (self.end + data[-self.END_BYTES :])[-self.END_BYTES :]
        if self.final_event:
            self.final_event.feed(data)
        while data:
            if not self._room:
                self._begin_piece()
            part = data[: self._room]
            self._append(part)
            data = data[len(part) :]

    def _append(self, data: bytes) -> None:
        """Write to the current piece. A full disk loses these bytes, and the next piece begins after them."""
        try:
            done = os.write(self._fd, data)
        except OSError:
            done = 0
        self.size += len(data)
        self._room = self._room - done if done == len(data) else 0

    def _begin_piece(self) -> None:
        self._close_piece()
        self._pieces.append(f"{self.path}.{self.size:015}")
        self._room = self._piece_bytes
        try:
            self._fd = open_log(self._pieces[-1])
        except OSError:
            self._fd = -1
        while len(self._pieces) > self.PIECES + 1:
            remove_file(self._pieces.pop(0))

    def _close_piece(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if self._pieces and not file_size(self._pieces[-1]):  # the disk was full
            remove_file(self._pieces.pop())


class FinalEvent:
    """Detects the event with which a CLI ends its output: a line of JSON with one of these values of `type`.

    Lines after it that are not JSON are ignored. Another line of JSON means that the CLI continues.
    """

    LINE_BYTES = 4 << 20

    def __init__(self, types: tuple[str, ...] | list[str]) -> None:
        self._types, self._rest = set(types), bytearray()
        self.seen_at: float | None = None

    def feed(self, data: bytes) -> None:
        if not self._types:
            return
        self._rest += data
        if b"\n" in data:
            lines = bytes(self._rest).split(b"\n")
            self._rest = bytearray(lines.pop())
            events = [line for line in lines if line.startswith(b"{")]
            if events:
                self.seen_at = time.monotonic() if self._is_final(events[-1]) else None
        elif len(self._rest) > self.LINE_BYTES:
            self._rest = bytearray(b"-")  # too long: this line does not count

    def _is_final(self, line: bytes) -> bool:
        if not any(kind.encode() in line for kind in self._types):
            return False
        try:
            return json.loads(line).get("type") in self._types
        except (ValueError, RecursionError, TypeError):
            return False


def next_piece(path: str, offset: int, ended_at: int) -> tuple[str, int, int]:
    """Find where a log continues from `offset`. Return the file, the offset of the first byte to read, and the end.

    Bytes that were deleted are skipped. `ended_at` is the size of a log that has ended: its last bytes may be missing.
    """
    files = log_files(path)
    sizes = [file_size(file) for _, file in files]
    end = max([ended_at, *(begin + size for (begin, _), size in zip(files, sizes))])
    for (begin, file), size in zip(files, sizes):
        if offset < begin + size:
            return file, max(offset, begin), end
    return path, (end if ended_at and offset < end else offset), end


def log_files(path: str) -> list[tuple[int, str]]:
    """Return the offset and path of each file of a log, in order."""
    folder, name = os.path.split(path)
    rest = (other[len(name) + 1 :] for other in os.listdir(folder) if other.startswith(name + "."))
    return [(0, path), *sorted((int(number), f"{path}.{number}") for number in rest if number.isdigit())]


def read_pieces(logs: list[tuple[int, str, int, Json]], budget: int) -> list[bytes]:
    """Read the new bytes of each log (their number, file, offset, and its answer, which gets `at` and `length`).

    All together take at most `budget` bytes. Logs with few new bytes come first and leave the rest to the others.
    """
    raw: list[bytes] = []
    at = 0
    logs.sort(key=lambda log: log[0])
    for position, (new, path, offset, answer) in enumerate(logs):
        share = max(1, budget // (len(logs) - position))
        if new:
            raw.append(_read_piece(path, offset, min(new, share)))
            answer.update(at=at, length=len(raw[-1]))
            at, budget = at + len(raw[-1]), budget - len(raw[-1])
    return raw


def _read_piece(path: str, offset: int, limit: int) -> bytes:
    begin = int(path.rpartition(".log.")[2]) if ".log." in os.path.basename(path) else 0
    try:
        with open(path, "rb") as file:
            file.seek(offset - begin)
            return file.read(limit)
    except FileNotFoundError:  # deleted since it was listed: the next poll finds the piece after it
        return b""

"""Stores the output of runs: bytes by offset, without gaps or repeats; the middle of a long log is dropped."""

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.run import Run
from app.store.engine import UNHURRIED, Statement, run_together
from app.store.tables import logs

PIECE, ROW = 1 << 20, 1 << 18


class Piece(NamedTuple):
    """Bytes of a stream and the offset at which they stand."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


def append(
    conn: Connection,
    run_id: int,
    stream: str,
    offset: int,
    data: bytes,
    keep: int | None = None,
    from_host: bool = False,
) -> Piece:
    """Store the bytes of a stream from `offset`, except those that are stored already. Returns the new ones.

    A piece that would leave a gap is not stored, unless it comes `from_host`: the host dropped what is missing. Such a
    write does not wait for the disk: if the database loses it, bytes and size together, it is fetched again. Of a
    stream longer than `keep` bytes the first and the last half stay, at their offsets.
    """
    size = int(run_together(conn, *([UNHURRIED] if from_host else ()), (_SIZE[stream], {"run": run_id}))[-1][0]["size"])
    begin = max(size, offset) if from_host else size
    news = data[begin - offset :] if offset <= begin else b""
    end = begin + len(news)
    if end > size:
        grown = _GROWN[stream], {"run": run_id, "size": end}
        run_together(conn, grown, *_rows(run_id, stream, begin, news))
        if keep and end > keep:
            _leave_out(conn, run_id, stream, keep // 2, end - keep // 2)
    return Piece(begin, news)


def _rows(run_id: int, stream: str, begin: int, data: bytes) -> Iterator[Statement]:
    """Rows of the size that Postgres stores fastest."""
    whole = memoryview(data)
    for at in range(0, len(data), ROW):
        yield _ROW, {"run": run_id, "stream": stream, "offset": begin + at, "data": whole[at : at + ROW]}


_ROW = 'INSERT INTO logs (run_id, stream, "offset", data) VALUES (%(run)s, %(stream)s, %(offset)s, %(data)b)'
_STREAMS = "stdout", "stderr"
_GROWN = {name: f"UPDATE runs SET {name}_size = %(size)s WHERE id = %(run)s" for name in _STREAMS}  # noqa: S608
_SIZE = {name: f"SELECT {name}_size AS size FROM runs WHERE id = %(run)s FOR UPDATE" for name in _STREAMS}  # noqa: S608


def _leave_out(conn: Connection, run_id: int, stream: str, since: int, until: int) -> None:
    """Delete the pieces between two offsets."""
    end = logs.c.offset + sa.func.octet_length(logs.c.data)
    between = (logs.c.run_id == run_id, logs.c.stream == stream, logs.c.offset.between(since, until), end <= until)
    conn.execute(sa.delete(logs).where(*between))


def piece(conn: Connection, run_id: int, stream: str, offset: int = 0, most: int = PIECE) -> Piece:
    """The stored bytes of a stream from `offset`, at most `most`; empty if there are none yet.

    If the piece begins later than `offset`, the bytes between were dropped.
    """
    begin, data = offset, bytearray()
    for row in run_together(conn, (_PIECE, {"run": run_id, "stream": stream, "offset": offset, "most": most}))[0]:
        if not data:
            begin = max(offset, row["offset"])
        elif row["offset"] > begin + len(data):
            break
        data += memoryview(row["data"])[max(0, offset - row["offset"]) :]
    return Piece(begin, bytes(data[:most]))


# The row that contains the offset, or the first one after it; and those that begin within `most` bytes after it. Each
# part uses the key alone: there may be a hundred megabytes before it.
_PIECE = """
SELECT "offset", data FROM logs, (
    SELECT COALESCE(
        (SELECT "offset" FROM (
            SELECT "offset", octet_length(data) AS size FROM logs
            WHERE run_id = %(run)s AND stream = %(stream)s AND "offset" <= %(offset)s ORDER BY "offset" DESC LIMIT 1
        ) AS before WHERE "offset" + size > %(offset)s),
        (SELECT min("offset") FROM logs WHERE run_id = %(run)s AND stream = %(stream)s AND "offset" > %(offset)s)
    ) AS at
) AS first
WHERE run_id = %(run)s AND stream = %(stream)s AND "offset" >= at AND "offset" < greatest(at, %(offset)s) + %(most)s
ORDER BY "offset"
"""


def read(conn: Connection, run_id: int, stream: str, offset: int = 0, most: int | None = None) -> bytes:
    """The stored bytes of a stream from `offset`, at most `most`. A line tells how many bytes were dropped at a gap."""
    data = bytearray()
    while most is None or len(data) < most:
        more = piece(conn, run_id, stream, offset, PIECE if most is None else most - len(data))
        if not more.data:
            break
        data += left_out(more.offset - offset) + more.data
        offset = more.end
    return bytes(data)


def pieces(conn: Connection, run_id: int, stream: str, offset: int) -> Iterator[Piece]:
    """A stream from `offset`, one piece at a time. A piece that does not follow the one before: bytes were dropped."""
    while (more := piece(conn, run_id, stream, offset)).data:
        yield more
        offset = more.end


def ends(conn: Connection, run: Run, stream: str, head: int = 1 << 20, tail: int = 8 << 20) -> bytes:
    """The beginning and the end of a stream, in bounded memory."""
    size = run.log_size(stream)
    if size <= head + tail:
        return read(conn, run.id, stream)
    first = piece(conn, run.id, stream, 0, head)
    return first.data + left_out(size - tail - head) + read(conn, run.id, stream, size - tail)


def left_out(count: int) -> bytes:
    """The line that replaces dropped bytes of a log."""
    return f"\n[... {count:,} bytes left out ...]\n".encode() if count > 0 else b""

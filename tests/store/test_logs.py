"""Checks logs as rows: gaps, repeats, and the limit of what is kept of a long log."""

import random

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Run
from app.store import logs, runs, tasks
from app.store.tables import logs as log_rows
from app.store.tables import runs as rows
from tests.builders import AT, a_stored_task, apply


@pytest.fixture
def run_id(conn: Connection) -> int:
    apply(conn)
    task = a_stored_task(conn)
    placed = {"host_id": "localhost", "agent_type": "coder", "until": AT.isoformat()}
    tasks.record(conn, task.id, Fact(FactKind.PLACED, placed), AT)
    run = runs.get(conn, task.id, 1)
    assert run is not None
    return int(run.id)


def test_pieces_in_any_order_and_overlap_make_one_log(conn: Connection, run_id: int) -> None:
    whole, at = bytes(range(256)) * 20, 0
    chance = random.Random(7)
    while at < len(whole):
        begin = max(0, at - chance.randrange(0, 300))
        at = logs.append(conn, run_id, "stdout", begin, whole[begin : begin + chance.randrange(1, 700)]).end
    assert logs.read(conn, run_id, "stdout") == whole
    assert logs.piece(conn, run_id, "stdout", 1000, most=500) == (1000, whole[1000:1500])
    assert logs.piece(conn, run_id, "stdout", len(whole)).data == b""


def test_a_piece_of_many_rows_reads_as_one(conn: Connection, run_id: int) -> None:
    whole = random.Random(3).randbytes(3 * logs.ROW + 77)
    assert logs.append(conn, run_id, "stdout", 0, whole[:1000], from_host=True).end == 1000
    assert logs.append(conn, run_id, "stdout", 500, whole[500:], from_host=True) == (1000, whole[1000:])
    assert logs.read(conn, run_id, "stdout") == whole
    assert b"".join(data for _, data in logs.pieces(conn, run_id, "stdout", 7)) == whole[7:]


def test_a_gap_is_taken_only_where_the_bytes_are_gone(conn: Connection, run_id: int) -> None:
    assert logs.append(conn, run_id, "stdout", 0, b"head").end == 4
    assert logs.append(conn, run_id, "stdout", 1004, b"tail").end == 4
    assert logs.append(conn, run_id, "stdout", 1004, b"tail", from_host=True).end == 1008
    assert logs.piece(conn, run_id, "stdout", 4) == (1004, b"tail")
    assert logs.read(conn, run_id, "stdout") == b"head\n[... 1,000 bytes left out ...]\ntail"


def test_a_gap_at_the_end_counts(conn: Connection, run_id: int) -> None:
    logs.append(conn, run_id, "stdout", 0, b"head")
    assert logs.append(conn, run_id, "stdout", 900, b"", from_host=True).end == 900


def test_of_a_log_without_end_only_so_much_is_kept(conn: Connection, run_id: int) -> None:
    at = 0
    for number in range(100):
        at = logs.append(conn, run_id, "stdout", at, b"%099d\n" % number, keep=2000).end
    said = logs.read(conn, run_id, "stdout")
    assert at == 10_000
    assert len(said) < 2200
    assert said.startswith(b"%099d\n" % 0) and said.endswith(b"%099d\n" % 99)


def test_what_is_left_out_are_the_rows_that_lie_between_and_no_other(conn: Connection, run_id: int) -> None:
    for begin in range(0, 1000, 100):
        logs.append(conn, run_id, "stdout", begin, b"x" * 100)
    logs._leave_out(conn, run_id, "stdout", 150, 650)
    kept = conn.execute(sa.select(log_rows.c.offset).order_by(log_rows.c.offset)).scalars()
    assert list(kept) == [0, 100, 600, 700, 800, 900]


@pytest.mark.parametrize("seed", range(5))
def test_a_piece_from_anywhere_is_what_is_kept_from_there_up_to_the_next_gap(
    conn: Connection, run_id: int, seed: int
) -> None:
    chance, kept, at = random.Random(seed), dict[int, int](), 0
    for _ in range(40):
        at += chance.choice((0, 0, 0, chance.randrange(1, 400)))  # left out on the host
        data = chance.randbytes(chance.choice((1, 7, 300, 2000)))
        logs.append(conn, run_id, "stdout", at, data, from_host=True)
        kept |= {at + n: byte for n, byte in enumerate(data)}
        at += len(data)
    for _ in range(60):
        offset, most = chance.randrange(0, at + 10), chance.choice((1, 50, 1000, 1 << 20))
        begin = next((n for n in range(offset, at) if n in kept), offset)
        end = next((n for n in range(begin, at + 1) if n not in kept), begin)
        expected = bytes(kept[n] for n in range(begin, min(end, begin + most)))
        assert logs.piece(conn, run_id, "stdout", offset, most) == (begin if expected else offset, expected)


def test_both_ends_of_a_long_log_can_be_had_alone(conn: Connection, run_id: int) -> None:
    logs.append(conn, run_id, "stdout", 0, b"a" * 50 + b"b" * 100 + b"c" * 50)
    run = run_of(conn, run_id)
    assert logs.ends(conn, run, "stdout", 10, 20) == b"a" * 10 + b"\n[... 170 bytes left out ...]\n" + b"c" * 20
    assert logs.ends(conn, run, "stdout") == b"a" * 50 + b"b" * 100 + b"c" * 50


def run_of(conn: Connection, run_id: int) -> Run:
    return runs.run_of(conn.execute(sa.select(rows).where(rows.c.id == run_id)).mappings().one())

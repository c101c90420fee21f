"""Checks connections to Postgres: what happens when one breaks, and that a read opens no transaction."""

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from app.store import engine as ours

HANG_UP = "SELECT pg_terminate_backend(pg_backend_pid())"


def announced(engine: Engine) -> list[str]:
    told: list[str] = []
    ours.announce_after_commit(engine, lambda line: told.append(line["kind"]))
    return told


def hang_up(engine: Engine) -> None:
    with engine.begin() as conn:
        ours.announce_later(conn, {"what": "started"})
        ours.run_together(conn, (HANG_UP, {}), ("SELECT 1", {}))


def test_a_server_that_hangs_up_within_a_transaction_is_told_as_that(engine: Engine) -> None:
    told = announced(engine)
    with pytest.raises(OperationalError):
        hang_up(engine)
    assert told == []
    with engine.begin() as conn:
        assert ours.fetch_one(conn, "SELECT 1 AS one") == {"one": 1}


def pid(conn: Connection) -> int:
    return int(conn.scalar(sa.text("SELECT pg_backend_pid()")) or 0)


def test_a_connection_that_ended_while_nobody_used_it_is_replaced_before_it_is_used(engine: Engine) -> None:
    kept = ours.connect(engine.url.render_as_string(hide_password=False), 1)
    with kept.begin() as conn:
        killed = pid(conn)
    with kept.begin() as conn:
        assert pid(conn) == killed, "it is kept"
    with engine.begin() as conn:
        conn.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": killed})
    with kept.begin() as conn:
        assert pid(conn) != killed
    kept.dispose()


def test_whoever_only_reads_begins_no_transaction_and_leaves_none(engine: Engine) -> None:
    with ours.reading_connection(engine) as conn:
        ours.run_together(conn, ("SELECT 1 AS one", {}), ("SELECT 2 AS two", {}))
        raw = conn.connection.driver_connection
        assert raw is not None
        assert raw.info.transaction_status.name == "IDLE"
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE passing (x int)"))
        conn.rollback()
    with engine.begin() as conn:
        assert ours.fetch_one(conn, "SELECT to_regclass('passing') AS it") == {"it": None}

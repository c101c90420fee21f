"""Starts the servers that tests share: one embedded Postgres and one Valkey for each session."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy import Engine

from app.cli.local import servers
from app.cli.local.process_manager import ProcessManager
from app.config.settings import embedded_database_url, read
from app.store.engine import connect
from app.store.migrate import migrate
from app.store.tables import metadata

HOME = "FLEET_TEST_HOME"
TEMPLATE = "template_fleet"
SMALL = 2 << 20
_NAMES = [f'"{table.name}"' for table in metadata.sorted_tables if table.name != "instance"]
_HISTORY_TOO = "SET LOCAL session_replication_role = replica;"
_TRUNCATE = f"{_HISTORY_TOO} TRUNCATE {', '.join(_NAMES)}"
_DELETE = _HISTORY_TOO + ";".join(f"DELETE FROM {name}" for name in _NAMES)
_LARGEST = "SELECT max(pg_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace"
_RESTART = (
    "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
)


class Servers:
    """Postgres with a migrated template database, and Valkey, in a folder of their own."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fleet-test-"))
        self._manager = ProcessManager()

    def start(self) -> None:
        """Start both, and name them in the environment for the processes of pytest-xdist."""
        servers.POSTGRES_SETTINGS |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        servers.POSTGRES_SETTINGS |= {"max_connections": "200"}
        servers.prepare_home(self.home)
        self._manager.add(servers.postgres(self.home))
        self._manager.add(servers.valkey(self.home))
        os.environ[HOME] = str(self.home)
        servers.create_database(embedded_database_url(self.home), TEMPLATE)
        engine = connect(url(TEMPLATE), 1)
        migrate(engine)
        engine.dispose()

    def stop(self) -> None:
        self._manager.stop()
        os.environ.pop(HOME, None)
        shutil.rmtree(self.home, ignore_errors=True)


def url(name: str) -> str:
    """The address of a database on the shared server."""
    return embedded_database_url(home()).replace("/fleet?", f"/{name}?")


def home() -> Path:
    return Path(os.environ[HOME])


def valkey_url(number: int = 0) -> str:
    return f"redis+socket://{home()}/run/valkey.sock?virtual_host={number}"


def create(name: str, template: str = TEMPLATE) -> None:
    """Create a database as a copy of the template."""
    _run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


def drop(name: str) -> None:
    _run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def empty(engine: Engine) -> None:
    """Remove every row since the migration. DELETE takes a millisecond where TRUNCATE takes 150; large tables are
    truncated all the same."""
    with engine.begin() as conn:
        grown = conn.execute(sa.text(_LARGEST)).scalar_one() > SMALL
        raw = conn.connection.driver_connection
        assert raw is not None
        raw.execute(_TRUNCATE if grown else _DELETE)
        raw.execute(_RESTART)


def fresh_name() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


def config(**environ: str) -> dict[str, str]:
    """An environment for a fleet of a test. It passes the checks of a real one."""
    given = {
        "FLEET_HOME": str(home()),
        "HOME": str(home()),
        "FLEET_OPERATOR_TOKEN": "operator-token-of-the-test",
        "FLEET_ENROLL_TOKEN": "enroll-token-of-the-test",
        "FLEET_VIEWER_TOKEN": "viewer-token-of-the-test",
        "FLEET_MOST_LOAD": "10000",  # tests hold on a busy machine too
        "FLEET_REVIEW_QUIET_SECS": "0",
    } | environ
    read(given)
    return given


def _run(statement: str) -> None:
    address = url("postgres").replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as conn:
        conn.execute(statement.encode())

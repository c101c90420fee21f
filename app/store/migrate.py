"""Migrates the database's schema, one process at a time."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection, Engine

MIGRATING = 0x6D696772  # the advisory lock of the process that migrates


def migrate(engine: Engine, revision: str = "head") -> str:
    """Apply the missing migrations up to `revision`; returns the revision in force."""
    with engine.begin() as conn:
        conn.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATING)))
        command.upgrade(_config(conn), revision)
        return str(conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())


def _config(conn: Connection) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = conn
    return config

"""The schema that the migrations make is the one that the tables promise."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from app.store import fleet_config
from app.store.tables import metadata


def test_migrations_and_tables_do_not_differ(conn: Connection) -> None:
    context = MigrationContext.configure(conn, opts={"compare_type": True})
    assert compare_metadata(context, metadata) == []


def test_an_instance_has_one_name_that_can_name_a_folder(conn: Connection) -> None:
    assert fleet_config.instance(conn) == fleet_config.instance(conn)
    assert fleet_config.instance(conn).isalnum()

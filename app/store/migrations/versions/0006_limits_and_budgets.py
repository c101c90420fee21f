"""Credentials that are closed until a limit ends, budgets and what was added to them, overrides of CLIs."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE rules
            ADD enabled boolean NOT NULL DEFAULT true,
            ADD clis jsonb NOT NULL DEFAULT '{}',
            ADD budget jsonb NOT NULL DEFAULT '{}',
            ADD "commit" jsonb NOT NULL DEFAULT '{}',
            ADD hooks jsonb NOT NULL DEFAULT '{}'
    """)
    op.execute("ALTER TABLE hosts ADD clis jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE runs ADD stop_for jsonb")
    op.execute("""
        CREATE TABLE credentials (
            name text CONSTRAINT credentials_pkey PRIMARY KEY,
            closed_until timestamptz,
            why text,
            tries integer NOT NULL DEFAULT 0,
            warning text,
            told_at timestamptz NOT NULL
        )
    """)
    op.execute("""
        CREATE TABLE allowances (
            task_pk bigint CONSTRAINT allowances_pkey PRIMARY KEY
                CONSTRAINT allowances_task_pk_fkey REFERENCES tasks,
            tokens bigint NOT NULL DEFAULT 0,
            dollars double precision NOT NULL DEFAULT 0,
            minutes double precision NOT NULL DEFAULT 0
        )
    """)


def downgrade() -> None:
    raise NotImplementedError("tasks may wait for limits under this schema: restore a backup instead")

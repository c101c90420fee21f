"""Looks at hosts: when the next one is due, who has it, since when a host does not answer; and what hosts still keep."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE looks (
            host_id text CONSTRAINT looks_pkey PRIMARY KEY
                CONSTRAINT looks_host_id_fkey REFERENCES hosts (host_id) ON DELETE CASCADE,
            next_at timestamptz NOT NULL,
            holder text,
            held_until timestamptz,
            tried_at timestamptz,
            answered_at timestamptz,
            failing_since timestamptz,
            why text,
            in_a_row integer NOT NULL DEFAULT 0,
            disk_free bigint
        )
    """)
    op.execute("ALTER TABLE runs ADD COLUMN released_at timestamptz, ADD COLUMN saved text")
    op.execute("""
        CREATE INDEX runs_kept_idx ON runs (host_id)
        WHERE host_id IS NOT NULL AND ended_at IS NOT NULL AND released_at IS NULL
    """)


def downgrade() -> None:
    op.execute("DROP INDEX runs_kept_idx")
    op.execute("ALTER TABLE runs DROP COLUMN released_at, DROP COLUMN saved")
    op.drop_table("looks")

"""Hosts are probed: what was seen, when, and since when they are as they are; and who named them."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE hosts
            ADD since timestamptz NOT NULL DEFAULT now(),
            ADD origin text NOT NULL DEFAULT 'declared'
                CONSTRAINT hosts_origin_check CHECK (origin IN ('declared', 'added')),
            ADD labels text[] NOT NULL DEFAULT '{}',
            ADD probe jsonb,
            ADD probed_at timestamptz,
            ADD probing_until timestamptz
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE hosts DROP since, DROP origin, DROP labels, DROP probe, DROP probed_at, DROP probing_until
    """)

"""Deliveries know what they are about, so that those of one issue or branch are looked into together."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE deliveries ADD about text")
    op.execute("DROP INDEX deliveries_open_idx")
    op.execute("""
        CREATE INDEX deliveries_unread_idx ON deliveries (id) WHERE applied_at IS NULL AND about IS NULL
    """)
    op.execute("""
        CREATE INDEX deliveries_open_idx ON deliveries (due_at, id) WHERE applied_at IS NULL AND about IS NOT NULL
    """)
    op.execute("""
        CREATE INDEX deliveries_about_idx ON deliveries (forge, about) WHERE applied_at IS NULL AND about IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP INDEX deliveries_about_idx")
    op.execute("DROP INDEX deliveries_open_idx")
    op.execute("DROP INDEX deliveries_unread_idx")
    op.execute("CREATE INDEX deliveries_open_idx ON deliveries (due_at) WHERE applied_at IS NULL")
    op.execute("ALTER TABLE deliveries DROP COLUMN about")

"""An instance has a name of its own: its folders on hosts stay the same when its database's address changes."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE instance (
            name text CONSTRAINT instance_pkey PRIMARY KEY DEFAULT substr(md5(gen_random_uuid()::text), 1, 12)
        )
    """)
    op.execute("INSERT INTO instance DEFAULT VALUES")


def downgrade() -> None:
    op.drop_table("instance")

"""What a run used before the day on which it told so last: what it uses over midnight counts for each day apart."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD told_on date, ADD used_before jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE runs DROP told_on, DROP used_before")

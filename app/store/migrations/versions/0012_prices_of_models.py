"""What fleet.toml says that models cost, for those of which a CLI itself says that they answered."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE prices (model text PRIMARY KEY, price jsonb NOT NULL)")


def downgrade() -> None:
    op.execute("DROP TABLE prices")

"""A credential can be closed because its login was refused, which no clock mends; which repositories keep files in LFS."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE credentials ADD refused boolean NOT NULL DEFAULT false")
    op.execute("ALTER TABLE repositories ADD keeps_lfs boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE credentials DROP refused")
    op.execute("ALTER TABLE repositories DROP keeps_lfs")

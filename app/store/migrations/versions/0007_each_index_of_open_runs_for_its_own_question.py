"""Each index of open runs answers its own question only: none of them looks fit to count an agent's runs by walking all
runs that are open, which a plan made while the table was empty did."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP INDEX runs_open_idx, runs_deadline_idx")
    op.execute("""
        CREATE INDEX runs_open_idx ON runs (host_id, agent_type) WHERE ended_at IS NULL AND host_id IS NOT NULL
    """)
    op.execute("CREATE INDEX runs_deadline_idx ON runs (deadline) WHERE ended_at IS NULL AND deadline IS NOT NULL")


def downgrade() -> None:
    raise NotImplementedError("nothing is gained by the wider indexes: go on from here")

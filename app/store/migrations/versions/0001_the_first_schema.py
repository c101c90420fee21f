"""The first schema: every table, and the triggers that make events append-only."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('capsets',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('names', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('capsets_pkey')),
    sa.UniqueConstraint('names', name=op.f('capsets_names_key'))
    )
    op.create_table('clis',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('template', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('clis_pkey'))
    )
    op.create_table('deliveries',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('forge', sa.Text(), nullable=False),
    sa.Column('delivery_id', sa.Text(), nullable=False),
    sa.Column('event', sa.Text(), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('received_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('due_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('held_until', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('tries', sa.Integer(), server_default='0', nullable=False),
    sa.Column('result', sa.Text(), nullable=True),
    sa.Column('why', sa.Text(), nullable=True),
    sa.Column('applied_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('deliveries_pkey')),
    sa.UniqueConstraint('forge', 'delivery_id', name=op.f('deliveries_forge_delivery_id_key'))
    )
    op.create_index('deliveries_open_idx', 'deliveries', ['due_at'], unique=False, postgresql_where=sa.text('applied_at IS NULL'))
    op.create_table('forges',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('token_env', sa.Text(), nullable=True),
    sa.Column('token_file', sa.Text(), nullable=True),
    sa.Column('webhook_secret_env', sa.Text(), nullable=True),
    sa.Column('webhook_secret_file', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('name', name=op.f('forges_pkey'))
    )
    op.create_table('hosts',
    sa.Column('host_id', sa.Text(), nullable=False),
    sa.Column('hostname', sa.Text(), nullable=False),
    sa.Column('work_dir', sa.Text(), nullable=True),
    sa.Column('reach', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('fitness', sa.Text(), nullable=False),
    sa.Column('why', sa.Text(), nullable=True),
    sa.CheckConstraint("fitness IN ('unknown', 'fit', 'unfit', 'draining', 'drained', 'quarantined')", name=op.f('hosts_fitness_check')),
    sa.PrimaryKeyConstraint('host_id', name=op.f('hosts_pkey'))
    )
    op.create_table('repositories',
    sa.Column('forge', sa.Text(), nullable=False),
    sa.Column('id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('full_name', sa.Text(), nullable=False),
    sa.Column('clone_url', sa.Text(), nullable=False),
    sa.Column('default_branch', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('forge', 'id', name=op.f('repositories_pkey'))
    )
    op.create_table('rounds',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('ran_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('rounds_pkey'))
    )
    op.create_table('rules',
    sa.Column('position', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('forge', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('cli', sa.Text(), nullable=True),
    sa.Column('max_retries', sa.Integer(), nullable=False),
    sa.Column('task_timeout_secs', sa.Integer(), nullable=False),
    sa.Column('validation', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.ForeignKeyConstraint(['forge'], ['forges.name'], name=op.f('rules_forge_fkey')),
    sa.PrimaryKeyConstraint('position', name=op.f('rules_pkey'))
    )
    op.create_table('slots',
    sa.Column('host_id', sa.Text(), nullable=False),
    sa.Column('agent_type', sa.Text(), nullable=False),
    sa.Column('max_concurrency', sa.Integer(), nullable=False),
    sa.Column('capabilities', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.ForeignKeyConstraint(['host_id'], ['hosts.host_id'], name=op.f('slots_host_id_fkey'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('host_id', 'agent_type', name=op.f('slots_pkey'))
    )
    op.create_table('tasks',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('task_id', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('mode', sa.Text(), nullable=False),
    sa.Column('priority', sa.SmallInteger(), nullable=False),
    sa.Column('capset_id', sa.Integer(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('ready', sa.Boolean(), nullable=False),
    sa.Column('created_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('moved_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('forge', sa.Text(), nullable=True),
    sa.Column('repository_id', sa.BigInteger(), nullable=True),
    sa.Column('issue_number', sa.BigInteger(), nullable=True),
    sa.Column('branch', sa.Text(), nullable=True),
    sa.Column('wants_pull', sa.Boolean(), nullable=False),
    sa.Column('max_retries', sa.Integer(), nullable=False),
    sa.Column('retry_count', sa.Integer(), nullable=False),
    sa.Column('review_count', sa.Integer(), nullable=False),
    sa.Column('unconfirmed', sa.Integer(), nullable=False),
    sa.Column('run', sa.Integer(), nullable=False),
    sa.Column('host_id', sa.Text(), nullable=True),
    sa.Column('agent_id', sa.Text(), nullable=True),
    sa.Column('due_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('session', sa.Text(), nullable=True),
    sa.Column('pr_number', sa.BigInteger(), nullable=True),
    sa.Column('pr_title', sa.Text(), nullable=True),
    sa.Column('pr_url', sa.Text(), nullable=True),
    sa.Column('head', sa.Text(), nullable=True),
    sa.Column('assigned_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('started_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('completed_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.CheckConstraint("NOT ready OR state = 'created'", name=op.f('tasks_ready_check')),
    sa.CheckConstraint("mode IN ('undecided', 'ssh_cli', 'http_pull')", name=op.f('tasks_mode_check')),
    sa.CheckConstraint("state IN ('created', 'assigned', 'running', 'review_pending', 'parked', 'completed', 'failed', 'agent_lost', 'cancelled')", name=op.f('tasks_state_check')),
    sa.ForeignKeyConstraint(['capset_id'], ['capsets.id'], name=op.f('tasks_capset_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('tasks_pkey')),
    sa.UniqueConstraint('forge', 'repository_id', 'issue_number', name=op.f('tasks_forge_repository_id_issue_number_key')),
    sa.UniqueConstraint('task_id', name=op.f('tasks_task_id_key')),
    postgresql_with={'fillfactor': 70}
    )
    op.create_index('tasks_due_at_idx', 'tasks', ['due_at'], unique=False, postgresql_where=sa.text('due_at IS NOT NULL'))
    op.create_index('tasks_ready_idx', 'tasks', [sa.literal_column('priority DESC'), 'id'], unique=False, postgresql_where='ready')
    op.create_index('tasks_ready_of_set_idx', 'tasks', ['capset_id', sa.literal_column('priority DESC'), 'id'], unique=False, postgresql_where='ready')
    op.create_index('tasks_state_idx', 'tasks', ['state', 'id'], unique=False)
    op.create_table('briefs',
    sa.Column('task_pk', sa.BigInteger(), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('task_type', sa.Text(), nullable=False),
    sa.Column('title', sa.Text(), nullable=False),
    sa.Column('requirements', sa.Text(), nullable=False),
    sa.Column('labels', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('prompt', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('prompt_sha256', sa.Text(), nullable=False),
    sa.Column('repository', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('issue', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('cli', sa.Text(), nullable=True),
    sa.Column('validation', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('timeout_secs', sa.Integer(), nullable=False),
    sa.Column('asked_by', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['task_pk'], ['tasks.id'], name=op.f('briefs_task_pk_fkey')),
    sa.PrimaryKeyConstraint('task_pk', name=op.f('briefs_pkey'))
    )
    op.create_table('debts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('task_pk', sa.BigInteger(), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('run', sa.Integer(), nullable=False),
    sa.Column('due_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('tries', sa.Integer(), server_default='0', nullable=False),
    sa.Column('held_until', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('paid_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('given_up_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['task_pk'], ['tasks.id'], name=op.f('debts_task_pk_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('debts_pkey')),
    sa.UniqueConstraint('task_pk', 'seq', 'kind', name=op.f('debts_task_pk_seq_kind_key'))
    )
    op.create_index('debts_open_idx', 'debts', ['due_at'], unique=False, postgresql_where=sa.text('paid_at IS NULL AND given_up_at IS NULL'))
    op.create_table('events',
    sa.Column('task_pk', sa.BigInteger(), nullable=False),
    sa.Column('seq', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('what', sa.Text(), nullable=False),
    sa.Column('from_state', sa.Text(), nullable=True),
    sa.Column('to_state', sa.Text(), nullable=False),
    sa.Column('run', sa.Integer(), nullable=True),
    sa.Column('key', sa.Text(), nullable=True),
    sa.Column('detail', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['task_pk'], ['tasks.id'], name=op.f('events_task_pk_fkey')),
    sa.PrimaryKeyConstraint('task_pk', 'seq', name=op.f('events_pkey'))
    )
    op.create_index('events_key_idx', 'events', ['task_pk', 'key'], unique=True, postgresql_where=sa.text('key IS NOT NULL'))
    op.create_table('posts',
    sa.Column('task_pk', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('remote_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['task_pk'], ['tasks.id'], name=op.f('posts_task_pk_fkey')),
    sa.PrimaryKeyConstraint('task_pk', 'kind', name=op.f('posts_pkey'))
    )
    op.create_table('receipts',
    sa.Column('task_pk', sa.BigInteger(), nullable=False),
    sa.Column('body', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('written_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['task_pk'], ['tasks.id'], name=op.f('receipts_task_pk_fkey')),
    sa.PrimaryKeyConstraint('task_pk', name=op.f('receipts_pkey'))
    )
    op.create_table('runs',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('task_pk', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('host_id', sa.Text(), nullable=True),
    sa.Column('agent_id', sa.Text(), nullable=True),
    sa.Column('agent_type', sa.Text(), nullable=True),
    sa.Column('assigned_at', postgresql.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('started_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('deadline', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('seen_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('ended_at', postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('end', sa.Text(), nullable=True),
    sa.Column('result', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('outcome', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('session', sa.Text(), nullable=True),
    sa.Column('stdout_size', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('stderr_size', sa.BigInteger(), server_default='0', nullable=False),
    sa.ForeignKeyConstraint(['task_pk'], ['tasks.id'], name=op.f('runs_task_pk_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('runs_pkey')),
    sa.UniqueConstraint('name', name=op.f('runs_name_key')),
    sa.UniqueConstraint('task_pk', 'number', name=op.f('runs_task_pk_number_key'))
    )
    op.create_index('runs_deadline_idx', 'runs', ['deadline'], unique=False, postgresql_where=sa.text('ended_at IS NULL'))
    op.create_index('runs_open_idx', 'runs', ['host_id', 'agent_type'], unique=False, postgresql_where=sa.text('ended_at IS NULL'))
    op.create_table('logs',
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('stream', sa.Text(), nullable=False),
    sa.Column('offset', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('logs_run_id_fkey')),
    sa.PrimaryKeyConstraint('run_id', 'stream', 'offset', name=op.f('logs_pkey'))
    )
    op.execute("""
        CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'events are append-only: % is refused', TG_OP;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events
        FOR EACH ROW EXECUTE FUNCTION events_are_append_only()
    """)
    op.execute("""
        CREATE TRIGGER never_truncated BEFORE TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only()
    """)


def downgrade() -> None:
    raise NotImplementedError("the first schema has nothing before it: drop the database instead")

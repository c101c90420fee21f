"""Agents that pull: who they are, who may become one, what they were answered; and a queue index for each side."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE agents (
            agent_id text CONSTRAINT agents_pkey PRIMARY KEY,
            agent_type text NOT NULL,
            hostname text NOT NULL,
            capabilities text[] NOT NULL,
            max_concurrency integer NOT NULL,
            metadata jsonb NOT NULL,
            token_hash bytea NOT NULL CONSTRAINT agents_token_hash_key UNIQUE,
            former_hash bytea CONSTRAINT agents_former_hash_key UNIQUE,
            former_until timestamptz,
            registered_at timestamptz NOT NULL,
            seen_at timestamptz NOT NULL,
            gone_at timestamptz,
            revoked_at timestamptz
        )
    """)
    op.execute("""
        CREATE TABLE enrolments (
            name text CONSTRAINT enrolments_pkey PRIMARY KEY,
            token_hash bytea NOT NULL CONSTRAINT enrolments_token_hash_key UNIQUE,
            made_at timestamptz NOT NULL,
            expires_at timestamptz,
            revoked_at timestamptz,
            used_at timestamptz,
            uses integer NOT NULL DEFAULT 0
        )
    """)
    op.execute("""
        CREATE TABLE answers (
            agent_id text NOT NULL CONSTRAINT answers_agent_id_fkey REFERENCES agents,
            key text NOT NULL,
            body jsonb NOT NULL,
            given_at timestamptz NOT NULL,
            CONSTRAINT answers_pkey PRIMARY KEY (agent_id, key)
        )
    """)
    op.execute("CREATE INDEX answers_given_at_idx ON answers (given_at)")
    _let_a_set_name_its_cli()
    _give_each_side_its_queue()
    op.execute("ALTER TABLE runs ADD message text, ADD progress jsonb, ADD handed boolean NOT NULL DEFAULT true")
    op.execute("CREATE INDEX runs_of_agent_idx ON runs (agent_id) WHERE ended_at IS NULL")


def _let_a_set_name_its_cli() -> None:
    """The kind of CLI a task asks hosts for becomes a part of its set of requirements."""
    op.execute("ALTER TABLE capsets ADD cli text NOT NULL DEFAULT '', DROP CONSTRAINT capsets_names_key")
    op.execute("ALTER TABLE capsets ADD CONSTRAINT capsets_names_cli_key UNIQUE (names, cli)")
    op.execute("""
        INSERT INTO capsets (names, cli)
        SELECT DISTINCT c.names, b.cli FROM tasks t JOIN capsets c ON c.id = t.capset_id JOIN briefs b ON b.task_pk = t.id
        WHERE b.cli IS NOT NULL
    """)
    op.execute("""
        UPDATE tasks t SET capset_id = wanted.id
        FROM briefs b, capsets had, capsets wanted
        WHERE b.task_pk = t.id AND had.id = t.capset_id AND b.cli IS NOT NULL
          AND wanted.names = had.names AND wanted.cli = b.cli
    """)
    op.execute("ALTER TABLE briefs DROP cli")


def _give_each_side_its_queue() -> None:
    op.execute("DROP INDEX tasks_ready_idx, tasks_ready_of_set_idx")
    for name, columns, not_for in (
        ("tasks_for_agents_idx", "priority DESC, id", "ssh_cli"),
        ("tasks_of_set_for_agents_idx", "capset_id, priority DESC, id", "ssh_cli"),
        ("tasks_of_set_for_hosts_idx", "capset_id, priority DESC, id", "http_pull"),
    ):
        op.execute(f"CREATE INDEX {name} ON tasks ({columns}) WHERE ready AND mode <> '{not_for}'")


def downgrade() -> None:
    raise NotImplementedError("agents may hold work under this schema: restore a backup instead")

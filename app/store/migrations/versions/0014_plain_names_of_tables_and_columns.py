"""Renames tables and columns to the words of the documentation. Renames only: no row is read or written."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLES = {
    "answers": "dequeue_answers",
    "briefs": "task_details",
    "capsets": "requirement_sets",
    "commands": "comment_commands",
    "cursors": "forge_cursors",
    "debts": "outbox",
    "heard": "first_seen",
    "looks": "host_polls",
    "posts": "forge_comments",
    "rounds": "periodic_jobs",
}
COLUMNS = (  # the new name of the table, the old and the new name of the column
    ("comment_commands", "heard_at", "received_at"),
    ("comment_commands", "may", "allowed"),
    ("comment_commands", "said_at", "commented_at"),
    ("credentials", "told_at", "reported_at"),
    ("deliveries", "about", "subject"),
    ("dequeue_answers", "given_at", "answered_at"),
    ("events", "what", "kind"),
    ("host_polls", "in_a_row", "consecutive"),
    ("outbox", "paid_at", "done_at"),
    ("runs", "handed", "acknowledged"),
    ("runs", "stop_for", "stop_reason"),
    ("runs", "told_on", "usage_day"),
    ("runs", "used_before", "usage_before"),
    ("task_details", "asked_by", "requested_by"),
    ("tasks", "capset_id", "requirement_set_id"),
)
INDEXES = {  # those of constraints too: renaming the index renames the constraint
    "answers_given_at_idx": "dequeue_answers_answered_at_idx",
    "answers_pkey": "dequeue_answers_pkey",
    "briefs_pkey": "task_details_pkey",
    "capsets_names_cli_key": "requirement_sets_names_cli_key",
    "capsets_pkey": "requirement_sets_pkey",
    "commands_forge_comment_id_key": "comment_commands_forge_comment_id_key",
    "commands_open_idx": "comment_commands_open_idx",
    "commands_pkey": "comment_commands_pkey",
    "cursors_pkey": "forge_cursors_pkey",
    "debts_open_idx": "outbox_open_idx",
    "debts_pkey": "outbox_pkey",
    "debts_task_pk_seq_kind_key": "outbox_task_pk_seq_kind_key",
    "deliveries_about_idx": "deliveries_subject_idx",
    "deliveries_unread_idx": "deliveries_unsorted_idx",
    "heard_pkey": "first_seen_pkey",
    "looks_pkey": "host_polls_pkey",
    "posts_pkey": "forge_comments_pkey",
    "rounds_pkey": "periodic_jobs_pkey",
    "runs_unheard_idx": "runs_uncollected_idx",
}
FOREIGN_KEYS = (  # the new name of the table, the old and the new name of the constraint
    ("dequeue_answers", "answers_agent_id_fkey", "dequeue_answers_agent_id_fkey"),
    ("first_seen", "heard_task_pk_fkey", "first_seen_task_pk_fkey"),
    ("forge_comments", "posts_task_pk_fkey", "forge_comments_task_pk_fkey"),
    ("host_polls", "looks_host_id_fkey", "host_polls_host_id_fkey"),
    ("outbox", "debts_task_pk_fkey", "outbox_task_pk_fkey"),
    ("task_details", "briefs_task_pk_fkey", "task_details_task_pk_fkey"),
    ("tasks", "tasks_capset_id_fkey", "tasks_requirement_set_id_fkey"),
)
SEQUENCES = {
    "capsets_id_seq": "requirement_sets_id_seq",
    "commands_id_seq": "comment_commands_id_seq",
    "debts_id_seq": "outbox_id_seq",
}


def upgrade() -> None:
    for old, new in TABLES.items():
        op.execute(f"ALTER TABLE {old} RENAME TO {new}")
    for table, old, new in COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for table, old, new in FOREIGN_KEYS:
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")
    for old, new in INDEXES.items():
        op.execute(f"ALTER INDEX {old} RENAME TO {new}")
    for old, new in SEQUENCES.items():
        op.execute(f"ALTER SEQUENCE {old} RENAME TO {new}")


def downgrade() -> None:
    for old, new in SEQUENCES.items():
        op.execute(f"ALTER SEQUENCE {new} RENAME TO {old}")
    for old, new in INDEXES.items():
        op.execute(f"ALTER INDEX {new} RENAME TO {old}")
    for table, old, new in FOREIGN_KEYS:
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {new} TO {old}")
    for table, old, new in COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
    for old, new in TABLES.items():
        op.execute(f"ALTER TABLE {new} RENAME TO {old}")

"""Defines the tables. Rows that change often are narrow, long texts have tables of their own, and triggers keep events
append-only."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from app.domain.host import Fitness, Origin
from app.domain.task import Mode, State

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
    }
)

Row = sa.RowMapping | Mapping[str, Any]  # a row by the names of its columns, from SQLAlchemy or from the driver
MOMENT = TIMESTAMP(timezone=True)
WORDS = ARRAY(sa.Text)


def _one_of(column: str, words: type[State] | type[Mode] | type[Fitness] | type[Origin]) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(str(word)) for word in words)})", name=column)


def _task_key(primary: bool = False) -> sa.Column[int]:
    return sa.Column("task_pk", sa.ForeignKey("tasks.id"), primary_key=primary, nullable=False)


requirement_sets = sa.Table(
    "requirement_sets",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("names", WORDS, nullable=False),
    sa.Column("cli", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("names", "cli"),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("task_id", sa.Text, nullable=False, unique=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("requirement_set_id", sa.ForeignKey("requirement_sets.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("ready", sa.Boolean, nullable=False),
    sa.Column("created_at", MOMENT, nullable=False),
    sa.Column("moved_at", MOMENT, nullable=False),
    sa.Column("forge", sa.Text),
    sa.Column("repository_id", sa.BigInteger),
    sa.Column("issue_number", sa.BigInteger),
    sa.Column("branch", sa.Text),
    sa.Column("wants_pull", sa.Boolean, nullable=False),
    sa.Column("max_retries", sa.Integer, nullable=False),
    sa.Column("retry_count", sa.Integer, nullable=False),
    sa.Column("review_count", sa.Integer, nullable=False),
    sa.Column("unconfirmed", sa.Integer, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("host_id", sa.Text),
    sa.Column("agent_id", sa.Text),
    sa.Column("due_at", MOMENT),
    sa.Column("reason", sa.Text),
    sa.Column("session", sa.Text),
    sa.Column("pr_number", sa.BigInteger),
    sa.Column("pr_title", sa.Text),
    sa.Column("pr_url", sa.Text),
    sa.Column("head", sa.Text),
    sa.Column("assigned_at", MOMENT),
    sa.Column("started_at", MOMENT),
    sa.Column("completed_at", MOMENT),
    _one_of("state", State),
    _one_of("mode", Mode),
    sa.CheckConstraint("NOT ready OR state = 'created'", name="ready"),
    sa.UniqueConstraint("forge", "repository_id", "issue_number"),
    postgresql_with={"fillfactor": 70},
)
_QUEUE = (tasks.c.priority.desc(), tasks.c.id)  # highest priority first, then oldest
_FOR_AGENTS, _FOR_HOSTS = sa.text("ready AND mode <> 'ssh_cli'"), sa.text("ready AND mode <> 'http_pull'")
sa.Index("tasks_for_agents_idx", *_QUEUE, postgresql_where=_FOR_AGENTS)
sa.Index("tasks_of_set_for_agents_idx", tasks.c.requirement_set_id, *_QUEUE, postgresql_where=_FOR_AGENTS)
sa.Index("tasks_of_set_for_hosts_idx", tasks.c.requirement_set_id, *_QUEUE, postgresql_where=_FOR_HOSTS)
sa.Index("tasks_due_at_idx", tasks.c.due_at, postgresql_where=tasks.c.due_at.is_not(None))
sa.Index("tasks_state_idx", tasks.c.state, tasks.c.id)

task_details = sa.Table(
    "task_details",
    metadata,
    _task_key(primary=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("task_type", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("requirements", sa.Text, nullable=False),
    sa.Column("labels", WORDS, nullable=False),
    sa.Column("prompt", JSONB, nullable=False),
    sa.Column("prompt_sha256", sa.Text, nullable=False),
    sa.Column("repository", JSONB),
    sa.Column("issue", JSONB),
    sa.Column("validation", WORDS, nullable=False),
    sa.Column("timeout_secs", sa.Integer, nullable=False),
    sa.Column("requested_by", sa.Text),
    sa.Column("issue_sha256", sa.Text),
    sa.Column("accepted_entry", sa.BigInteger),
    sa.Column("settings", JSONB),
    sa.Column("active_at", MOMENT),
)

events = sa.Table(
    "events",
    metadata,
    _task_key(primary=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("from_state", sa.Text),
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("run", sa.Integer),
    sa.Column("key", sa.Text),
    sa.Column("detail", JSONB, nullable=False),
    sa.Column("at", MOMENT, nullable=False),
)
sa.Index("events_key_idx", events.c.task_pk, events.c.key, unique=True, postgresql_where=events.c.key.is_not(None))

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    _task_key(),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("due_at", MOMENT, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("held_until", MOMENT),
    sa.Column("done_at", MOMENT),
    sa.Column("given_up_at", MOMENT),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("task_pk", "seq", "kind"),
)
sa.Index(
    "outbox_open_idx",
    outbox.c.due_at,
    postgresql_where=sa.and_(outbox.c.done_at.is_(None), outbox.c.given_up_at.is_(None)),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    _task_key(),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("host_id", sa.Text),
    sa.Column("agent_id", sa.Text),
    sa.Column("agent_type", sa.Text),
    sa.Column("assigned_at", MOMENT, nullable=False),
    sa.Column("started_at", MOMENT),
    sa.Column("deadline", MOMENT),
    sa.Column("seen_at", MOMENT),
    sa.Column("ended_at", MOMENT),
    sa.Column("end", sa.Text),
    sa.Column("result", JSONB),
    sa.Column("outcome", JSONB),
    sa.Column("session", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("progress", JSONB),
    sa.Column("usage_day", sa.Date),  # the newest day (UTC) on which the run reported its usage
    sa.Column("usage_before", JSONB),  # the usage it had reported before that day
    sa.Column("acknowledged", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("stop_reason", JSONB),
    sa.Column("stdout_size", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("stderr_size", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("released_at", MOMENT),
    sa.Column("saved", sa.Text),
    sa.UniqueConstraint("task_pk", "number"),
)
_OPEN = runs.c.ended_at.is_(None)
sa.Index(
    "runs_open_idx", runs.c.host_id, runs.c.agent_type, postgresql_where=sa.and_(_OPEN, runs.c.host_id.is_not(None))
)
sa.Index("runs_of_agent_idx", runs.c.agent_id, postgresql_where=_OPEN)
sa.Index("runs_deadline_idx", runs.c.deadline, postgresql_where=sa.and_(_OPEN, runs.c.deadline.is_not(None)))
_KEPT_ON_HOSTS = sa.text("host_id IS NOT NULL AND ended_at IS NOT NULL AND released_at IS NULL")
sa.Index("runs_kept_idx", runs.c.host_id, postgresql_where=_KEPT_ON_HOSTS)
_UNCOLLECTED = sa.text("host_id IS NOT NULL AND \"end\" = 'expired' AND result IS NULL AND released_at IS NULL")
sa.Index("runs_uncollected_idx", runs.c.host_id, postgresql_where=_UNCOLLECTED)

logs = sa.Table(
    "logs",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True, nullable=False),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),  # stored as it is: Postgres compresses slowly
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("forge", sa.Text, nullable=False),
    sa.Column("delivery_id", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("received_at", MOMENT, nullable=False),
    sa.Column("due_at", MOMENT, nullable=False),
    sa.Column("held_until", MOMENT),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("result", sa.Text),
    sa.Column("why", sa.Text),
    sa.Column("applied_at", MOMENT),
    sa.Column("subject", sa.Text),
    sa.UniqueConstraint("forge", "delivery_id"),
)
_WAITS = sa.text("applied_at IS NULL AND subject IS NOT NULL")
sa.Index("deliveries_unsorted_idx", deliveries.c.id, postgresql_where=sa.text("applied_at IS NULL AND subject IS NULL"))
sa.Index("deliveries_open_idx", deliveries.c.due_at, deliveries.c.id, postgresql_where=_WAITS)
sa.Index("deliveries_subject_idx", deliveries.c.forge, deliveries.c.subject, postgresql_where=_WAITS)

forges = sa.Table(
    "forges",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("token_env", sa.Text),
    sa.Column("token_file", sa.Text),
    sa.Column("webhook_secret_env", sa.Text),
    sa.Column("webhook_secret_file", sa.Text),
    sa.Column("bot_id", sa.BigInteger),
    sa.Column("bots", WORDS, nullable=False, server_default="{}"),
    sa.Column("labels", JSONB),
)

rules = sa.Table(
    "rules",
    metadata,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forge", sa.ForeignKey("forges.name"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("cli", sa.Text),
    sa.Column("max_retries", sa.Integer, nullable=False),
    sa.Column("task_timeout_secs", sa.Integer, nullable=False),
    sa.Column("validation", WORDS, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("clis", JSONB, nullable=False, server_default="{}"),
    sa.Column("budget", JSONB, nullable=False, server_default="{}"),
    sa.Column("commit", JSONB, nullable=False, server_default="{}"),
    sa.Column("hooks", JSONB, nullable=False, server_default="{}"),
    sa.Column("reviewers", WORDS, nullable=False, server_default="{}"),
    sa.Column("flow", sa.Text, nullable=False, server_default="branch"),
)

repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("forge", sa.Text, primary_key=True),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("full_name", sa.Text, nullable=False),
    sa.Column("clone_url", sa.Text, nullable=False),
    sa.Column("default_branch", sa.Text, nullable=False),
    sa.Column("keeps_lfs", sa.Boolean, nullable=False, server_default=sa.false()),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("host_id", sa.Text, primary_key=True),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("work_dir", sa.Text),
    sa.Column("reach", JSONB, nullable=False),
    sa.Column("fitness", sa.Text, nullable=False),
    sa.Column("why", sa.Text),
    sa.Column("since", MOMENT, nullable=False, server_default=sa.func.now()),
    sa.Column("origin", sa.Text, nullable=False, server_default="declared"),
    sa.Column("labels", WORDS, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("probe", JSONB),
    sa.Column("probed_at", MOMENT),
    sa.Column("probing_until", MOMENT),
    sa.Column("clis", JSONB, nullable=False, server_default="{}"),
    _one_of("fitness", Fitness),
    _one_of("origin", Origin),
)

slots = sa.Table(
    "slots",
    metadata,
    sa.Column("host_id", sa.ForeignKey("hosts.host_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("agent_type", sa.Text, primary_key=True),
    sa.Column("max_concurrency", sa.Integer, nullable=False),
    sa.Column("capabilities", WORDS, nullable=False),
)

clis = sa.Table(
    "clis",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("template", JSONB, nullable=False),
)

prices = sa.Table(
    "prices",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("price", JSONB, nullable=False),
)

agents = sa.Table(
    "agents",
    metadata,
    sa.Column("agent_id", sa.Text, primary_key=True),
    sa.Column("agent_type", sa.Text, nullable=False),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("capabilities", WORDS, nullable=False),
    sa.Column("max_concurrency", sa.Integer, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("former_hash", sa.LargeBinary, unique=True),
    sa.Column("former_until", MOMENT),
    sa.Column("registered_at", MOMENT, nullable=False),
    sa.Column("seen_at", MOMENT, nullable=False),
    sa.Column("gone_at", MOMENT),
    sa.Column("revoked_at", MOMENT),
)

enrolments = sa.Table(
    "enrolments",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("made_at", MOMENT, nullable=False),
    sa.Column("expires_at", MOMENT),
    sa.Column("revoked_at", MOMENT),
    sa.Column("used_at", MOMENT),
    sa.Column("uses", sa.Integer, nullable=False, server_default="0"),
)

dequeue_answers = sa.Table(
    "dequeue_answers",
    metadata,
    sa.Column("agent_id", sa.ForeignKey("agents.agent_id"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("answered_at", MOMENT, nullable=False),
)
sa.Index("dequeue_answers_answered_at_idx", dequeue_answers.c.answered_at)

receipts = sa.Table(
    "receipts",
    metadata,
    _task_key(primary=True),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("written_at", MOMENT, nullable=False),
)

forge_comments = sa.Table(
    "forge_comments",
    metadata,
    _task_key(primary=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("remote_id", sa.BigInteger, nullable=False),
)

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, server_default=sa.text("substr(md5(gen_random_uuid()::text), 1, 12)")),
)

periodic_jobs = sa.Table(
    "periodic_jobs",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("ran_at", MOMENT, nullable=False),
)

host_polls = sa.Table(
    "host_polls",
    metadata,
    sa.Column("host_id", sa.ForeignKey("hosts.host_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("next_at", MOMENT, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("held_until", MOMENT),
    sa.Column("tried_at", MOMENT),
    sa.Column("answered_at", MOMENT),
    sa.Column("failing_since", MOMENT),
    sa.Column("why", sa.Text),
    sa.Column("consecutive", sa.Integer, nullable=False, server_default="0"),
    sa.Column("disk_free", sa.BigInteger),
)

credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("closed_until", MOMENT),
    sa.Column("why", sa.Text),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("warning", sa.Text),
    sa.Column("reported_at", MOMENT, nullable=False),
    sa.Column("refused", sa.Boolean, nullable=False, server_default=sa.false()),
)

allowances = sa.Table(
    "allowances",
    metadata,
    _task_key(primary=True),
    sa.Column("tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("dollars", sa.Float, nullable=False, server_default="0"),
    sa.Column("minutes", sa.Float, nullable=False, server_default="0"),
)

comment_commands = sa.Table(
    "comment_commands",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("forge", sa.Text, nullable=False),
    sa.Column("comment_id", sa.BigInteger, nullable=False),
    sa.Column("repository_id", sa.BigInteger, nullable=False),
    sa.Column("full_name", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("is_pull", sa.Boolean, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("allowed", sa.Boolean),
    sa.Column("commented_at", sa.Text),
    sa.Column("version", sa.Integer),
    sa.Column("verb", sa.Text, nullable=False),
    sa.Column("argument", sa.Text, nullable=False),
    sa.Column("received_at", MOMENT, nullable=False),
    sa.Column("due_at", MOMENT, nullable=False),
    sa.Column("held_until", MOMENT),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("begun_at", MOMENT),
    sa.Column("done_at", MOMENT),
    sa.Column("result", sa.Text),
    sa.Column("reply", sa.Text),
    sa.Column("answered_at", MOMENT),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("forge", "comment_id"),
)
sa.Index(
    "comment_commands_open_idx", comment_commands.c.due_at, postgresql_where=comment_commands.c.answered_at.is_(None)
)

first_seen = sa.Table(
    "first_seen",
    metadata,
    _task_key(primary=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("at", MOMENT, nullable=False),
)

forge_cursors = sa.Table(
    "forge_cursors",
    metadata,
    sa.Column("forge", sa.Text, primary_key=True),
    sa.Column("repository_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("since", sa.Text, nullable=False),
)

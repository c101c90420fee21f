"""Schemas of responses: errors, tasks, runs, logs and deliveries."""

from typing import Any

from marshmallow import Schema, fields, validate

from app.api.errors import STATUS
from app.domain.task import Mode, Priority, State


def nullable(field: type[fields.Field[Any]], **given: Any) -> Any:
    return field(allow_none=True, **given)


def one_of(words: Any) -> Any:
    return fields.String(required=True, validate=validate.OneOf([str(word) for word in words]))


class Error(Schema):
    """An error: a sentence and its kind."""

    error = fields.String(required=True)
    code = fields.String(required=True, validate=validate.OneOf(sorted(STATUS)))
    next_offset = fields.Integer(metadata={"description": "The offset at which the log continues."})


class Prompt(Schema):
    """The prompt of a CLI; `text` is complete."""

    goal = fields.String(required=True)
    constraints = fields.List(fields.String(), required=True)
    validation = fields.List(fields.String(), required=True)
    text = fields.String(required=True)
    hidden = fields.List(fields.String(), metadata={"description": "Hidden parts of the issue that were left out."})


class Repository(Schema):
    """A repository on its forge."""

    full_name = fields.String(required=True)
    clone_url = fields.String()
    default_branch = fields.String()


class Issue(Schema):
    """The issue that a task came from."""

    number = fields.Integer(required=True)
    title = fields.String()
    url = fields.String()


class Event(Schema):
    """An event of a task."""

    seq = fields.Integer(required=True)
    fact = fields.String(required=True)
    from_ = nullable(fields.String, data_key="from", required=True)
    to = one_of(State)
    run = nullable(fields.Integer, required=True)
    detail = fields.Dict(required=True)
    at = fields.DateTime(required=True)


class Run(Schema):
    """A run: one attempt at a task."""

    number = fields.Integer(required=True)
    name = fields.String(required=True)
    host_id = nullable(fields.String, required=True)
    agent_id = nullable(fields.String, required=True)
    cli = nullable(fields.String, required=True)
    cli_version = nullable(fields.String)
    session = nullable(fields.String)
    end = nullable(fields.String)
    message = nullable(fields.String)
    progress = fields.Raw(allow_none=True)
    assigned_at = fields.DateTime(required=True)
    started_at = nullable(fields.DateTime)
    seen_at = nullable(fields.DateTime)
    ended_at = nullable(fields.DateTime)
    deadline = nullable(fields.DateTime)
    exit_code = nullable(fields.Integer)
    commits = fields.List(fields.String())
    validation = fields.List(fields.Dict())
    checks = fields.List(fields.Dict())
    artifacts = fields.List(fields.Dict())
    why = nullable(fields.String)
    verdict = nullable(fields.String)
    failure = nullable(fields.String)
    denied_actions = fields.List(fields.String())
    cost_source = nullable(fields.String)
    hooks = fields.List(fields.Dict())
    warnings = fields.List(fields.String())
    summary = nullable(fields.String)
    usage = nullable(fields.Dict)
    log_bytes = fields.Integer()


class OutboxEntry(Schema):
    """A side effect of a task that is still to be performed, or was given up."""

    kind = fields.String(required=True)
    tries = fields.Integer(required=True)
    due_at = fields.DateTime(required=True)
    given_up = fields.Boolean(required=True)
    error = nullable(fields.String)


class Task(Schema):
    """A task."""

    task_id = fields.String(required=True)
    source = fields.String(required=True)
    task_type = fields.String(required=True)
    title = fields.String(required=True)
    priority = one_of([p.word for p in Priority])
    status = one_of(State)
    execution_mode = one_of(Mode)
    assigned_agent_id = nullable(fields.String, required=True)
    assigned_host = nullable(fields.String, required=True)
    run = fields.Integer(required=True)
    retry_count = fields.Integer(required=True)
    max_retries = fields.Integer(required=True)
    review_count = fields.Integer(required=True)
    labels = fields.List(fields.String(), required=True)
    required_capabilities = fields.List(fields.String(), required=True)
    requirements = fields.String(required=True)
    prompt = fields.Nested(Prompt, required=True)
    repository = fields.Nested(Repository, required=True, allow_none=True)
    issue = fields.Nested(Issue, required=True, allow_none=True)
    branch_name = nullable(fields.String, required=True)
    pr_number = nullable(fields.Integer, required=True)
    pr_title = nullable(fields.String, required=True)
    pr_url = nullable(fields.String, required=True)
    reason = nullable(fields.String, required=True)
    wants_pull_request = fields.Boolean(required=True)
    due_at = nullable(fields.DateTime, required=True)
    created_at = fields.DateTime(required=True)
    assigned_at = nullable(fields.DateTime, required=True)
    started_at = nullable(fields.DateTime, required=True)
    completed_at = nullable(fields.DateTime, required=True)
    last_activity_at = fields.DateTime(required=True)


class WholeTask(Task):
    """A task with its events, runs and outbox."""

    events = fields.List(fields.Nested(Event))
    runs = fields.List(fields.Nested(Run))
    outbox = fields.List(fields.Nested(OutboxEntry))


class Comment(Schema):
    """A comment of a review."""

    path = fields.String(required=True)
    line = nullable(fields.Integer, required=True)
    text = fields.String(required=True)


class Push(Schema):
    """How to push: `git push origin HEAD:<ref>`, with `-o` for each of `options`.

    If the repository takes pull requests by push alone, `ref` is below `refs/for/` and needs no write permission.
    Another push to it updates the pull request. `fetch` is the ref of the previous push, if it is not the branch.
    """

    ref = fields.String(required=True)
    options = fields.List(fields.String(), required=True)
    fetch = nullable(fields.String, required=True)


class Feedback(Schema):
    """Changes that a review asks for; `prompt` is complete for a CLI that resumes its session."""

    kind = fields.String(required=True)
    by = fields.String(required=True)
    text = fields.String(required=True)
    comments = fields.List(fields.Nested(Comment), required=True)
    prompt = fields.String(required=True)
    push = fields.Nested(Push, required=True, allow_none=True)


class Reported(WholeTask):
    """A task after a report of its agent."""

    lease = fields.Integer(required=True)
    stop = fields.Boolean(required=True, metadata={"description": "Stop working: the task or your lease has ended."})
    notice = fields.String(metadata={"description": "A warning and how to fix it."})
    feedback = fields.Nested(Feedback)


class Commit(Schema):
    """Message and author for a commit of what the CLI left uncommitted."""

    message = fields.String(required=True)
    author_name = fields.String(required=True)
    author_email = fields.String(required=True)


class Work(Task):
    """A task that was dequeued. If `max_tasks` is more than one, `tasks` holds a list of these."""

    lease = fields.Integer(required=True, metadata={"description": "The number of the run: send it with every report."})
    lease_expires_at = fields.DateTime(required=True)
    confirm_by = fields.DateTime(required=True)
    timeout_secs = fields.Integer(required=True)
    checks = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "Commands to run on the work; report how they end."},
    )
    commit = fields.Nested(Commit, required=True)
    push = fields.Nested(Push, required=True, allow_none=True)


class Batch(Schema):
    """Several dequeued tasks."""

    tasks = fields.List(fields.Nested(Work), required=True)


class LogKept(Schema):
    """The offset at which a log continues."""

    next_offset = fields.Integer(required=True)


class LogRead(LogKept):
    """A piece of a log, in base64."""

    run = fields.Integer(required=True)
    stream = fields.String(required=True)
    offset = fields.Integer(required=True)
    data = fields.String(required=True)


class Delivery(Schema):
    """The result of a delivery."""

    result = fields.String(required=True, validate=validate.OneOf(["accepted", "duplicate", "ignored"]))
    delivery = fields.String(required=True)

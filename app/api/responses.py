"""What goes out: the shapes of the answers, as the OpenAPI document shows them."""

from typing import Any

from marshmallow import Schema, fields, validate

from app.api.errors import STATUS
from app.domain.host import Fitness, Origin
from app.domain.task import Mode, Priority, State


def _maybe(field: type[fields.Field[Any]], **given: Any) -> Any:
    return field(allow_none=True, **given)


def _one_of(words: Any) -> Any:
    return fields.String(required=True, validate=validate.OneOf([str(word) for word in words]))


class Error(Schema):
    """Every error: a sentence that says what to do, and its kind."""

    error = fields.String(required=True)
    code = fields.String(required=True, validate=validate.OneOf(sorted(STATUS)))
    next_offset = fields.Integer(metadata={"description": "Where a log wants to go on."})


class Prompt(Schema):
    """What a CLI is told: `text` is all of it."""

    goal = fields.String(required=True)
    constraints = fields.List(fields.String(), required=True)
    validation = fields.List(fields.String(), required=True)
    text = fields.String(required=True)
    hidden = fields.List(fields.String(), metadata={"description": "What was left out of the text unseen."})


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
    """Something that happened to a task."""

    seq = fields.Integer(required=True)
    fact = fields.String(required=True)
    from_ = _maybe(fields.String, data_key="from", required=True)
    to = _one_of(State)
    run = _maybe(fields.Integer, required=True)
    detail = fields.Dict(required=True)
    at = fields.DateTime(required=True)


class Run(Schema):
    """One attempt."""

    number = fields.Integer(required=True)
    name = fields.String(required=True)
    host_id = _maybe(fields.String, required=True)
    agent_id = _maybe(fields.String, required=True)
    cli = _maybe(fields.String, required=True)
    cli_version = _maybe(fields.String)
    session = _maybe(fields.String)
    end = _maybe(fields.String)
    message = _maybe(fields.String)
    progress = fields.Raw(allow_none=True)
    assigned_at = fields.DateTime(required=True)
    started_at = _maybe(fields.DateTime)
    seen_at = _maybe(fields.DateTime)
    ended_at = _maybe(fields.DateTime)
    deadline = _maybe(fields.DateTime)
    exit_code = _maybe(fields.Integer)
    commits = fields.List(fields.String())
    validation = fields.List(fields.Dict())
    checks = fields.List(fields.Dict())
    artifacts = fields.List(fields.Dict())
    why = _maybe(fields.String)
    verdict = _maybe(fields.String)
    failure = _maybe(fields.String)
    denied_actions = fields.List(fields.String())
    cost_source = _maybe(fields.String)
    hooks = fields.List(fields.Dict())
    warnings = fields.List(fields.String())
    summary = _maybe(fields.String)
    usage = _maybe(fields.Dict)
    log_bytes = fields.Integer()


class OutboxEntry(Schema):
    """A side effect of a task that is still to be performed, or was given up."""

    kind = fields.String(required=True)
    tries = fields.Integer(required=True)
    due_at = fields.DateTime(required=True)
    given_up = fields.Boolean(required=True)
    error = _maybe(fields.String)


class Task(Schema):
    """A task, by the contract's names."""

    task_id = fields.String(required=True)
    source = fields.String(required=True)
    task_type = fields.String(required=True)
    title = fields.String(required=True)
    priority = _one_of([p.word for p in Priority])
    status = _one_of(State)
    execution_mode = _one_of(Mode)
    assigned_agent_id = _maybe(fields.String, required=True)
    assigned_host = _maybe(fields.String, required=True)
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
    branch_name = _maybe(fields.String, required=True)
    pr_number = _maybe(fields.Integer, required=True)
    pr_title = _maybe(fields.String, required=True)
    pr_url = _maybe(fields.String, required=True)
    reason = _maybe(fields.String, required=True)
    wants_pull_request = fields.Boolean(required=True)
    due_at = _maybe(fields.DateTime, required=True)
    created_at = fields.DateTime(required=True)
    assigned_at = _maybe(fields.DateTime, required=True)
    started_at = _maybe(fields.DateTime, required=True)
    completed_at = _maybe(fields.DateTime, required=True)
    last_activity_at = fields.DateTime(required=True)


class WholeTask(Task):
    """A task with its history."""

    events = fields.List(fields.Nested(Event))
    runs = fields.List(fields.Nested(Run))
    outbox = fields.List(fields.Nested(OutboxEntry))


class Comment(Schema):
    """A comment of a review."""

    path = fields.String(required=True)
    line = _maybe(fields.Integer, required=True)
    text = fields.String(required=True)


class Push(Schema):
    """How to push: `git push origin HEAD:<ref>`, with `-o` for each of `options`. Where a repository takes pull
    requests by push alone, that is a `refs/for/` of its own, which needs no right to write; the same again moves the
    pull request. `fetch` is the ref that holds what was pushed before, where that is not the branch."""

    ref = fields.String(required=True)
    options = fields.List(fields.String(), required=True)
    fetch = _maybe(fields.String, required=True)


class Feedback(Schema):
    """Changes that were asked for; `prompt` is ready for a CLI that goes on with its session."""

    kind = fields.String(required=True)
    by = fields.String(required=True)
    text = fields.String(required=True)
    comments = fields.List(fields.Nested(Comment), required=True)
    prompt = fields.String(required=True)
    push = fields.Nested(Push, required=True, allow_none=True)


class Reported(WholeTask):
    """A task as its agent sees it after a report."""

    lease = fields.Integer(required=True)
    stop = fields.Boolean(required=True, metadata={"description": "Leave it alone: it, or your lease, is over."})
    notice = fields.String(metadata={"description": "What is not as it could be, and what to do about it."})
    feedback = fields.Nested(Feedback)


class Commit(Schema):
    """The message and author for what a CLI left uncommitted."""

    message = fields.String(required=True)
    author_name = fields.String(required=True)
    author_email = fields.String(required=True)


class Work(Task):
    """A task that was taken, with all that is needed to work on it. With `max_tasks` over 1 these come in `tasks`."""

    lease = fields.Integer(required=True, metadata={"description": "The run's number: show it with every report."})
    lease_expires_at = fields.DateTime(required=True)
    confirm_by = fields.DateTime(required=True)
    timeout_secs = fields.Integer(required=True)
    checks = fields.List(
        fields.String(), required=True, metadata={"description": "Commands to run on the work; tell how they ended."}
    )
    commit = fields.Nested(Commit, required=True)
    push = fields.Nested(Push, required=True, allow_none=True)


class Batch(Schema):
    """Several tasks at once."""

    tasks = fields.List(fields.Nested(Work), required=True)


class News(Schema):
    """What became of a task that an agent holds or believes to hold."""

    task_id = fields.String(required=True)
    lease = fields.Integer(required=True)
    status = _maybe(fields.String, required=True)
    stop = fields.Boolean(required=True)
    lease_expires_at = _maybe(fields.DateTime, required=True)
    feedback = fields.Nested(Feedback)


class Pulse(Schema):
    """The answer to a heartbeat."""

    status = fields.String(required=True, validate=validate.OneOf(["online"]))
    tasks = fields.List(fields.Nested(News), required=True)


class Welcome(Schema):
    """The answer to a registration. The token is told this once."""

    agent_id = fields.String(required=True)
    registry_token = fields.String(required=True)
    heartbeat_interval_secs = fields.Integer(required=True)
    offline_after_secs = fields.Integer(required=True)


class Farewell(Schema):
    """What went back to the queue."""

    requeued = fields.List(fields.String(), required=True)


class Agent(Schema):
    """An agent as operators see it; `tasks` are those it works on."""

    agent_id = fields.String(required=True)
    agent_type = fields.String(required=True)
    hostname = fields.String(required=True)
    capabilities = fields.List(fields.String(), required=True)
    max_concurrency = fields.Integer(required=True)
    metadata = fields.Dict(required=True)
    status = fields.String(required=True, validate=validate.OneOf(["online", "offline"]))
    revoked = fields.Boolean(required=True)
    tasks = fields.List(fields.String(), required=True)
    registered_at = fields.DateTime(required=True)
    last_seen_at = fields.DateTime(required=True)


class LogKept(Schema):
    """Where a log goes on."""

    next_offset = fields.Integer(required=True)


class LogRead(LogKept):
    """A piece of a log, base64."""

    run = fields.Integer(required=True)
    stream = fields.String(required=True)
    offset = fields.Integer(required=True)
    data = fields.String(required=True)


class Slots(Schema):
    """Room for one kind of CLI."""

    agent_type = fields.String(required=True)
    capabilities = fields.List(fields.String(), required=True)
    max_concurrency = fields.Integer(required=True)
    taken = fields.Integer(required=True)
    missing = fields.Boolean(required=True, metadata={"description": "The last look did not find the CLI there."})


class Probe(Schema):
    """What the last look at a host showed. Seconds and bytes."""

    clock_offset = fields.Float(required=True)
    round_trip = fields.Float(required=True)
    boot_id = _maybe(fields.String)
    git = _maybe(fields.String)
    python = _maybe(fields.String)
    disk_free = _maybe(fields.Integer)
    memory_available = _maybe(fields.Integer)
    cpus = _maybe(fields.Integer)
    load_per_cpu = _maybe(fields.Float)
    clis = fields.Dict(keys=fields.String(), values=fields.String(allow_none=True))
    missing = fields.List(fields.String())
    lfs = fields.Boolean(allow_none=True, metadata={"description": "Whether git-lfs is there."})
    apart = fields.Boolean(
        allow_none=True,
        metadata={"description": "Whether its CLIs can be kept from looking into each other's processes."},
    )


class Host(Schema):
    """A machine that we go to."""

    host_id = fields.String(required=True)
    hostname = fields.String(required=True)
    fitness = _one_of(Fitness)
    why = _maybe(fields.String, required=True)
    since = _maybe(fields.DateTime, required=True)
    origin = _one_of(Origin)
    labels = fields.List(fields.String(), required=True)
    work_dir = _maybe(fields.String, required=True)
    probed_at = _maybe(fields.DateTime, required=True)
    probe = fields.Nested(Probe, required=True, allow_none=True)
    slots = fields.List(fields.Nested(Slots), required=True)


class Readiness(Schema):
    """One word for each thing that we need."""

    database = fields.String(required=True, validate=validate.OneOf(["ok", "away"]))
    broker = fields.String(required=True, validate=validate.OneOf(["ok", "away"]))


class Delivery(Schema):
    """What became of a delivery."""

    result = fields.String(required=True, validate=validate.OneOf(["accepted", "duplicate", "ignored"]))
    delivery = fields.String(required=True)

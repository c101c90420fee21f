"""Schemas of requests. Missing and mistyped fields are named in the error; unknown fields are ignored."""

from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from app.api.strict_fields import (
    StrictBoolean,
    StrictInteger,
    StrictNumber,
    UtcDateTime,
    check_json_size,
    up_to_dollars,
    up_to_tokens,
)
from app.domain.task import Mode, Priority, State

LONGEST_WAIT_SECS = 30
MOST_TASKS = 50
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,199}\Z"
NAME_RULE = "Must begin with a letter or digit; letters, digits and ._@:- follow."


class _Lenient(Schema):
    class Meta:
        unknown = EXCLUDE


class NewTask(_Lenient):
    """A new task."""

    title = fields.String(required=True, validate=validate.Length(1, 500))
    requirements = fields.String(required=True, validate=validate.Length(0, 1_000_000))
    repository = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Regexp(r"^[\w.-]+/[\w.-]+\Z", error="must look like owner/name"),
    )
    required_capabilities = fields.List(
        fields.String(validate=validate.Length(1, 100)), load_default=list, validate=validate.Length(max=50)
    )
    priority = fields.String(load_default="normal", validate=validate.OneOf([p.word for p in Priority]))
    execution_mode = fields.String(load_default=Mode.UNDECIDED, validate=validate.OneOf([str(m) for m in Mode]))
    max_retries = StrictInteger(load_default=2, validate=validate.Range(0, 20))
    wants_pull_request = StrictBoolean(load_default=True)


class TaskFilter(_Lenient):
    """Filters of the task list; `after` is the last task id of the previous page."""

    status = fields.String(validate=validate.OneOf([str(s) for s in State]))
    agent_id = fields.String()
    host = fields.String()
    execution_mode = fields.String(validate=validate.OneOf([str(m) for m in Mode]))
    repository = fields.String()
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))
    after = fields.String()


class TaskQuery(_Lenient):
    """Whether a task is shown with its events."""

    events = fields.Boolean(load_default=True)


class Registration(_Lenient):
    """An agent that registers."""

    agent_id = fields.String(required=True, validate=validate.Regexp(NAME, error=NAME_RULE))
    agent_type = fields.String(required=True, validate=validate.Length(1, 100))
    hostname = fields.String(required=True, validate=validate.Length(1, 255))
    capabilities = fields.List(
        fields.String(validate=validate.Length(1, 100)), required=True, validate=validate.Length(max=200)
    )
    max_concurrency = StrictInteger(load_default=1, validate=validate.Range(1, 1000))
    metadata = fields.Dict(keys=fields.String(), load_default=dict, validate=check_json_size)


class AgentOnly(_Lenient):
    """The agent that calls."""

    agent_id = fields.String(required=True)


class Holding(_Lenient):
    """A task that the agent holds, by its lease."""

    task_id = fields.String(required=True)
    lease = StrictInteger(required=True)


class Heartbeat(AgentOnly):
    """A heartbeat, with the tasks that the agent holds."""

    tasks = fields.List(fields.Nested(Holding), load_default=None, allow_none=True, validate=validate.Length(max=1000))


class Dequeue(AgentOnly):
    """A request for work."""

    capabilities = fields.List(fields.String(), load_default=None, allow_none=True, validate=validate.Length(max=200))
    wait_secs = StrictNumber(load_default=0, validate=validate.Range(0, LONGEST_WAIT_SECS))
    max_tasks = StrictInteger(load_default=1, validate=validate.Range(1, MOST_TASKS))


class Report(AgentOnly):
    """A report of progress, or of failure."""

    status = fields.String(required=True, validate=validate.OneOf(["running", "failed"]))
    lease = StrictInteger(load_default=None, allow_none=True, validate=validate.Range(1))
    message = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100_000))
    progress = fields.Raw(load_default=None, allow_none=True, validate=check_json_size)


class LogPiece(_Lenient):
    """Bytes of a run's output, from an offset."""

    lease = StrictInteger(required=True)
    offset = StrictInteger(required=True, validate=validate.Range(0, 2**62))
    data = fields.String(required=True)
    stream = fields.String(load_default="stdout", validate=validate.OneOf(["stdout", "stderr"]))


NAMED_BY = {"pr": "url", "commit": "sha", "branch": "ref", "file": "path", "url": "url"}


class Artifact(_Lenient):
    """A result of the work; the required field depends on its type."""

    type = fields.String(required=True, validate=validate.OneOf(sorted(NAMED_BY)))
    url = fields.String(validate=validate.Length(1, 2000))
    sha = fields.String(validate=validate.Length(1, 64))
    ref = fields.String(validate=validate.Length(1, 300))
    path = fields.String(validate=validate.Length(1, 1000))

    @validates_schema
    def _names_what_it_is(self, given: dict[str, Any], **_: Any) -> None:
        wanted = NAMED_BY[given["type"]]
        if wanted not in given:
            raise ValidationError("Missing data for required field.", wanted)


class Spent(_Lenient):
    """Tokens and dollars that a run used."""

    input_tokens = StrictInteger(allow_none=True, validate=up_to_tokens)
    cached_tokens = StrictInteger(allow_none=True, validate=up_to_tokens)
    output_tokens = StrictInteger(allow_none=True, validate=up_to_tokens)
    cost_usd = StrictNumber(allow_none=True, validate=up_to_dollars)


class Check(_Lenient):
    """A validation command that was run."""

    command = fields.String(required=True, validate=validate.Length(max=2000))
    exit_code = StrictInteger(required=True, validate=validate.Range(-(2**31), 2**32))
    seconds = StrictNumber(allow_none=True)
    tail = fields.String(allow_none=True, validate=validate.Length(max=10_000))


class Receipt(AgentOnly):
    """The end of the work and its artifacts, which are checked on the forge."""

    task_id = fields.String()
    status = fields.String(required=True, validate=validate.OneOf(["completed", "failed", "partial"]))
    lease = StrictInteger(load_default=None, allow_none=True, validate=validate.Range(1))
    duration_seconds = StrictNumber(load_default=None, allow_none=True, validate=validate.Range(0))
    summary = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100_000))
    artifacts = fields.List(fields.Nested(Artifact), load_default=list, validate=validate.Length(max=100))
    error = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100_000))
    usage = fields.Nested(Spent, load_default=None, allow_none=True)
    checks = fields.List(fields.Nested(Check), load_default=list, allow_none=True, validate=validate.Length(max=100))
    session = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
    cli_version = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
    failure = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100))
    resets_at = UtcDateTime(load_default=None, allow_none=True)


class Assignment(_Lenient):
    """The agent or host that a task is assigned to."""

    agent_id = fields.String(load_default=None, allow_none=True)
    host = fields.String(load_default=None, allow_none=True)
    execution_mode = fields.String(load_default=None, allow_none=True, validate=validate.OneOf([str(m) for m in Mode]))

    @validates_schema
    def _names_one_target(self, given: dict[str, Any], **_: Any) -> None:
        if bool(given["agent_id"]) == bool(given["host"]):
            raise ValidationError("Name one of agent_id and host.")
        fits = Mode.HTTP_PULL if given["agent_id"] else Mode.SSH_CLI
        if given["execution_mode"] not in (None, fits):
            raise ValidationError(f"Must be {fits} for that target.", "execution_mode")


class AgentFilter(_Lenient):
    """Filters of the agent list."""

    capability = fields.String()
    status = fields.String(validate=validate.OneOf(["online", "offline"]))


class LogQuery(_Lenient):
    """The part of a log to read; the newest run by default."""

    run = fields.Integer(load_default=None, validate=validate.Range(1))
    stream = fields.String(load_default="stdout", validate=validate.OneOf(["stdout", "stderr"]))
    offset = fields.Integer(load_default=0, validate=validate.Range(0, 2**62))

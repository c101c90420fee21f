"""What may come in, by the contract's names. A missing or mistyped field is named; unknown ones are ignored."""

from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from app.api.strict_fields import Flag, Moment, Number, Whole, small, up_to_dollars, up_to_tokens
from app.domain.task import Mode, Priority, State

LONGEST_WAIT_SECS = 30
MOST_TASKS = 50
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,199}\Z"
NAME_RULE = "Must begin with a letter or digit; letters, digits and ._@:- follow."


class _Lenient(Schema):
    class Meta:
        unknown = EXCLUDE


class NewTask(_Lenient):
    """A task by API call."""

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
    max_retries = Whole(load_default=2, validate=validate.Range(0, 20))
    wants_pull_request = Flag(load_default=True)


class TaskFilter(_Lenient):
    """Which tasks to list; `after` is the task id that the page before ended with."""

    status = fields.String(validate=validate.OneOf([str(s) for s in State]))
    agent_id = fields.String()
    host = fields.String()
    execution_mode = fields.String(validate=validate.OneOf([str(m) for m in Mode]))
    repository = fields.String()
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))
    after = fields.String()


class Detail(_Lenient):
    """How much of a task to show."""

    events = fields.Boolean(load_default=True)


class Registration(_Lenient):
    """An agent introduces itself."""

    agent_id = fields.String(required=True, validate=validate.Regexp(NAME, error=NAME_RULE))
    agent_type = fields.String(required=True, validate=validate.Length(1, 100))
    hostname = fields.String(required=True, validate=validate.Length(1, 255))
    capabilities = fields.List(
        fields.String(validate=validate.Length(1, 100)), required=True, validate=validate.Length(max=200)
    )
    max_concurrency = Whole(load_default=1, validate=validate.Range(1, 1000))
    metadata = fields.Dict(keys=fields.String(), load_default=dict, validate=small)


class AgentOnly(_Lenient):
    """Who speaks."""

    agent_id = fields.String(required=True)


class Holding(_Lenient):
    """A task that the agent believes to hold, by its lease."""

    task_id = fields.String(required=True)
    lease = Whole(required=True)


class Heartbeat(AgentOnly):
    """The agent lives, and holds these tasks."""

    tasks = fields.List(fields.Nested(Holding), load_default=None, allow_none=True, validate=validate.Length(max=1000))


class Dequeue(AgentOnly):
    """The agent asks for work."""

    capabilities = fields.List(fields.String(), load_default=None, allow_none=True, validate=validate.Length(max=200))
    wait_secs = Number(load_default=0, validate=validate.Range(0, LONGEST_WAIT_SECS))
    max_tasks = Whole(load_default=1, validate=validate.Range(1, MOST_TASKS))


class Report(AgentOnly):
    """How far the agent is."""

    status = fields.String(required=True, validate=validate.OneOf(["running", "failed"]))
    lease = Whole(load_default=None, allow_none=True, validate=validate.Range(1))
    message = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100_000))
    progress = fields.Raw(load_default=None, allow_none=True, validate=small)


class LogPiece(_Lenient):
    """Bytes of a run's output, from an offset."""

    lease = Whole(required=True)
    offset = Whole(required=True, validate=validate.Range(0, 2**62))
    data = fields.String(required=True)
    stream = fields.String(load_default="stdout", validate=validate.OneOf(["stdout", "stderr"]))


NAMED_BY = {"pr": "url", "commit": "sha", "branch": "ref", "file": "path", "url": "url"}


class Artifact(_Lenient):
    """Something that was made: what it must name depends on its type."""

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
    """What a run used."""

    input_tokens = Whole(allow_none=True, validate=up_to_tokens)
    cached_tokens = Whole(allow_none=True, validate=up_to_tokens)
    output_tokens = Whole(allow_none=True, validate=up_to_tokens)
    cost_usd = Number(allow_none=True, validate=up_to_dollars)


class Check(_Lenient):
    """A validation command that was run."""

    command = fields.String(required=True, validate=validate.Length(max=2000))
    exit_code = Whole(required=True, validate=validate.Range(-(2**31), 2**32))
    seconds = Number(allow_none=True)
    tail = fields.String(allow_none=True, validate=validate.Length(max=10_000))


class Receipt(AgentOnly):
    """How the work ended, with what was made; every artifact is checked on the forge."""

    task_id = fields.String()
    status = fields.String(required=True, validate=validate.OneOf(["completed", "failed", "partial"]))
    lease = Whole(load_default=None, allow_none=True, validate=validate.Range(1))
    duration_seconds = Number(load_default=None, allow_none=True, validate=validate.Range(0))
    summary = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100_000))
    artifacts = fields.List(fields.Nested(Artifact), load_default=list, validate=validate.Length(max=100))
    error = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100_000))
    usage = fields.Nested(Spent, load_default=None, allow_none=True)
    checks = fields.List(fields.Nested(Check), load_default=list, allow_none=True, validate=validate.Length(max=100))
    session = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
    cli_version = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
    failure = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=100))
    resets_at = Moment(load_default=None, allow_none=True)


class Assignment(_Lenient):
    """Who shall do a task: an agent or a host."""

    agent_id = fields.String(load_default=None, allow_none=True)
    host = fields.String(load_default=None, allow_none=True)
    execution_mode = fields.String(load_default=None, allow_none=True, validate=validate.OneOf([str(m) for m in Mode]))

    @validates_schema
    def _names_one_place(self, given: dict[str, Any], **_: Any) -> None:
        if bool(given["agent_id"]) == bool(given["host"]):
            raise ValidationError("Name one of agent_id and host.")
        fits = Mode.HTTP_PULL if given["agent_id"] else Mode.SSH_CLI
        if given["execution_mode"] not in (None, fits):
            raise ValidationError(f"Must be {fits} for that place.", "execution_mode")


class AgentFilter(_Lenient):
    """Which agents to list."""

    capability = fields.String()
    status = fields.String(validate=validate.OneOf(["online", "offline"]))


class LogWanted(_Lenient):
    """Which part of a run's output to read; the newest run where none is named."""

    run = fields.Integer(load_default=None, validate=validate.Range(1))
    stream = fields.String(load_default="stdout", validate=validate.OneOf(["stdout", "stderr"]))
    offset = fields.Integer(load_default=0, validate=validate.Range(0, 2**62))

"""What may come in, by the contract's names. A missing or mistyped field is named; unknown ones are ignored."""

from marshmallow import EXCLUDE, Schema, fields, validate

from app.domain.task import Mode, Priority, State


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
    max_retries = fields.Integer(strict=True, load_default=2, validate=validate.Range(0, 20))
    wants_pull_request = fields.Boolean(load_default=True)


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

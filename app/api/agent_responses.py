"""Schemas of responses about agents."""

from marshmallow import Schema, fields, validate

from app.api.responses import Feedback, nullable


class News(Schema):
    """An update about a task that an agent holds or names."""

    task_id = fields.String(required=True)
    lease = fields.Integer(required=True)
    status = nullable(fields.String, required=True)
    stop = fields.Boolean(required=True)
    lease_expires_at = nullable(fields.DateTime, required=True)
    feedback = fields.Nested(Feedback)


class Pulse(Schema):
    """The response to a heartbeat."""

    status = fields.String(required=True, validate=validate.OneOf(["online"]))
    tasks = fields.List(fields.Nested(News), required=True)


class Welcome(Schema):
    """The response to a registration. The token is shown only here."""

    agent_id = fields.String(required=True)
    registry_token = fields.String(required=True)
    heartbeat_interval_secs = fields.Integer(required=True)
    offline_after_secs = fields.Integer(required=True)


class Farewell(Schema):
    """The tasks that went back to the queue."""

    requeued = fields.List(fields.String(), required=True)


class Agent(Schema):
    """An agent; `tasks` are those it holds."""

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

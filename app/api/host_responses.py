"""Schemas of responses about hosts, and about the health of the fleet."""

from marshmallow import Schema, fields, validate

from app.api.responses import nullable, one_of
from app.domain.host import Fitness, Origin


class Slots(Schema):
    """Slots of a host for one kind of CLI."""

    agent_type = fields.String(required=True)
    capabilities = fields.List(fields.String(), required=True)
    max_concurrency = fields.Integer(required=True)
    taken = fields.Integer(required=True)
    missing = fields.Boolean(required=True, metadata={"description": "The last probe did not find the CLI."})


class Probe(Schema):
    """The last probe of a host, in seconds and bytes."""

    clock_offset = fields.Float(required=True)
    round_trip = fields.Float(required=True)
    boot_id = nullable(fields.String)
    git = nullable(fields.String)
    python = nullable(fields.String)
    disk_free = nullable(fields.Integer)
    memory_available = nullable(fields.Integer)
    cpus = nullable(fields.Integer)
    load_per_cpu = nullable(fields.Float)
    clis = fields.Dict(keys=fields.String(), values=fields.String(allow_none=True))
    missing = fields.List(fields.String())
    lfs = fields.Boolean(allow_none=True, metadata={"description": "Whether git-lfs is installed."})
    apart = fields.Boolean(
        allow_none=True,
        metadata={"description": "Whether its CLIs can be kept from inspecting each other's processes."},
    )


class Host(Schema):
    """A machine that the fleet connects to over SSH."""

    host_id = fields.String(required=True)
    hostname = fields.String(required=True)
    fitness = one_of(Fitness)
    why = nullable(fields.String, required=True)
    since = nullable(fields.DateTime, required=True)
    origin = one_of(Origin)
    labels = fields.List(fields.String(), required=True)
    work_dir = nullable(fields.String, required=True)
    probed_at = nullable(fields.DateTime, required=True)
    probe = fields.Nested(Probe, required=True, allow_none=True)
    slots = fields.List(fields.Nested(Slots), required=True)


class Readiness(Schema):
    """The state of the database and the broker."""

    database = fields.String(required=True, validate=validate.OneOf(["ok", "away"]))
    broker = fields.String(required=True, validate=validate.OneOf(["ok", "away"]))

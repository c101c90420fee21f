"""Reads and validates fleet.toml; reports every fault at once."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate, validates_schema

from app.config import cli_schemas, references
from app.config.cli_schemas import StrictSchema
from app.config.settings import ConfigError


def _check_http(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValidationError("must be an http or https address")


class ForgeSchema(StrictSchema):
    url = fields.String(required=True, validate=_check_http)
    token_env = fields.String(load_default="FLEET_FORGE_TOKEN")
    token_file = fields.String(load_default=None)
    webhook_secret_env = fields.String(load_default="FLEET_WEBHOOK_SECRET")
    webhook_secret_file = fields.String(load_default=None)
    bot_id = fields.Integer(strict=True, load_default=None, allow_none=True)
    bots = fields.List(fields.String(validate=validate.Length(1)), load_default=list)
    labels = fields.Dict(
        keys=fields.String(validate=validate.OneOf(["todo", "doing", "review", "done", "blocked"])),
        values=fields.String(validate=validate.Length(max=50)),
        load_default=dict,
    )


class RepositorySchema(StrictSchema):
    forge = fields.String(required=True)
    name = fields.String(
        required=True,
        validate=validate.Regexp(r"^[^/\s]+/[^/\s]+$", error="must look like team/app or team/*"),
    )
    cli = fields.String(load_default=None, allow_none=True)
    max_retries = fields.Integer(strict=True, load_default=2, validate=validate.Range(0, 20))
    task_timeout_secs = fields.Integer(strict=True, load_default=3600, validate=validate.Range(1, 7 * 86400))
    validation = fields.List(fields.String(validate=validate.Length(1)), load_default=list)
    enabled = fields.Boolean(load_default=True)
    clis = cli_schemas.clis_field()
    budget = fields.Nested(cli_schemas.BudgetSchema, load_default=dict)
    commit = fields.Nested(cli_schemas.CommitSchema, load_default=dict)
    hooks = fields.Nested(cli_schemas.HooksSchema, load_default=dict)
    reviewers = fields.List(fields.String(validate=validate.Length(1)), load_default=list)
    flow = fields.String(load_default="branch", validate=validate.OneOf(["branch", "agit"]))


class SlotsSchema(StrictSchema):
    agent_type = fields.String(required=True, validate=validate.Regexp(r"^[A-Za-z0-9_.-]+$"))
    max_concurrency = fields.Integer(strict=True, load_default=1, validate=validate.Range(1, 1000))
    capabilities = fields.List(fields.String(validate=validate.Length(1)), load_default=list)


class DeclaredSlots(TypedDict):
    """What SlotsSchema loads."""

    agent_type: str
    max_concurrency: int
    capabilities: list[str]


def _check_host_key(lines: str) -> None:
    """Each line is a line of known_hosts without the host: the type of the key and the key."""
    if not all(re.match(r"\s*(ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+ +\S+", line) for line in lines.strip().splitlines()):
        raise ValidationError("each line must be a public key: ssh-ed25519 AAAA... (`fleet hosts test` shows it)")


class HostSchema(StrictSchema):
    """A machine that the fleet connects to. A `jump_only` host runs nothing; other hosts are reached through it."""

    host_id = fields.String(required=True, validate=validate.Regexp(r"^[A-Za-z0-9_.-]{1,100}\Z"))
    hostname = fields.String(required=True, validate=validate.Regexp(r"^[^\s/@]+\Z", error="must be a name or address"))
    ssh_user = fields.String(load_default=None, allow_none=True)
    ssh_port = fields.Integer(strict=True, load_default=22, validate=validate.Range(1, 65535))
    ssh_key_path = fields.String(load_default=None, allow_none=True)
    host_key = fields.String(load_default=None, allow_none=True, validate=_check_host_key)
    proxy_jump = fields.String(load_default=None, allow_none=True)
    jump_only = fields.Boolean(load_default=False)
    work_dir = fields.String(load_default=None, allow_none=True, validate=validate.Regexp(
        r"^(~|~?/[A-Za-z0-9/._+@~-]*)\Z", error="must be absolute or begin with ~/, of letters, digits and /._+@-"
    ))  # fmt: skip
    labels = fields.List(fields.String(validate=validate.Length(1, 100)), load_default=list)
    agents = fields.List(fields.Nested(SlotsSchema), load_default=list)
    clis = cli_schemas.clis_field()

    @validates_schema(skip_on_field_errors=False)
    def _check_agents(self, given: dict[str, Any], **_: Any) -> None:
        if isinstance(given.get("agents", []), list) and not given.get("agents") and not given.get("jump_only"):
            raise ValidationError("Name at least one kind of CLI, or set jump_only = true.", "agents")


class DeclaredHost(TypedDict):
    """What HostSchema loads. `clis` are changes to the templates of CLIs on this host."""

    host_id: str
    hostname: str
    ssh_user: str | None
    ssh_port: int
    ssh_key_path: str | None
    host_key: str | None
    proxy_jump: str | None
    jump_only: bool
    work_dir: str | None
    labels: list[str]
    agents: list[DeclaredSlots]
    clis: Mapping[str, Mapping[str, object]]


class FleetTomlSchema(StrictSchema):
    forges = fields.Dict(keys=fields.String(), values=fields.Nested(ForgeSchema), load_default=dict)
    repositories = fields.List(fields.Nested(RepositorySchema), load_default=list)
    hosts = fields.List(fields.Nested(HostSchema), load_default=list)
    clis = fields.Dict(
        keys=fields.String(validate=cli_schemas.CLI_NAME),
        values=fields.Nested(cli_schemas.CliSchema),
        load_default=dict,
    )
    prices = fields.Dict(keys=fields.String(), values=fields.Nested(cli_schemas.PriceSchema), load_default=dict)


Declared = dict[str, Any]


def read_toml(path: Path) -> Declared:
    """{forges, repositories, hosts, clis, prices} of fleet.toml, with defaults filled in. Raises ConfigError."""
    try:
        declared: Declared = FleetTomlSchema().load(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}."]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} is not TOML: {error}."]) from error
    except ValidationError as error:
        values = [f"{where}: {what}" for where, what in flat(error.messages)]
        names = references.faults(FleetTomlSchema().load({}) | dict(error.valid_data or {}))
        raise ConfigError([f"{path}: {fault}" for fault in values + names]) from error
    cli_schemas.price_the_clis(declared)
    if faults := _host_faults(declared) + references.faults(declared) + cli_schemas.faults(declared):
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    return declared


def flat(messages: Any, at: str = "") -> list[tuple[str, str]]:
    """Marshmallow's nested messages as (place, sentence) pairs: ("hosts.0.hostname", "Missing data ...")."""
    if isinstance(messages, dict):
        return [
            pair
            for key, value in messages.items()
            for pair in flat(value, at if key == "value" else f"{at}.{key}".strip("."))
        ]
    return [(at, str(message)) for message in messages]


def _host_faults(declared: Declared) -> list[str]:
    ids = [host["host_id"] for host in declared["hosts"]]
    faults = jump_faults({host["host_id"]: host["proxy_jump"] for host in declared["hosts"]})
    for host in declared["hosts"]:
        kinds = [agent["agent_type"] for agent in host["agents"]]
        faults += [
            f"hosts: {host['host_id']} has {kind!r} twice" for kind in sorted({k for k in kinds if kinds.count(k) > 1})
        ]
    faults += [f"hosts: {host_id!r} is declared twice" for host_id in sorted({i for i in ids if ids.count(i) > 1})]
    return faults


def jump_faults(jumps: Mapping[str, str | None]) -> list[str]:
    """Faults of `proxy_jump`, by host: the jump host must be declared and must be reached directly."""
    return [
        f"hosts: {host_id} has the proxy_jump {over!r}, which is not declared as a host"
        if over not in jumps
        else f"hosts: {host_id} has the proxy_jump {over}, which has a proxy_jump itself: only one jump is possible"
        for host_id, over in jumps.items()
        if over is not None and (over not in jumps or jumps[over] is not None)
    ]

"""Every setting, read once from the environment and fleet.toml, typed; refuses with all that is wrong at once."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from marshmallow import RAISE, Schema, ValidationError, fields, validate, validates_schema

from app.config import cli_schemas, references

N = TypeVar("N", int, float)

SOCKET_PATH_LIMIT = 107  # what the kernel takes for a unix socket, less the name that Postgres adds
SECRETS = (
    "FLEET_OPERATOR_TOKEN",
    "FLEET_ENROLL_TOKEN",
    "FLEET_WEBHOOK_SECRET",
    "FLEET_FORGE_TOKEN",
    "FLEET_RECEIPT_KEY",
)


class Wrong(Exception):
    """The configuration cannot be used. `faults` are sentences, one for each thing to mend."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Config:
    """What is in force. Seconds, unless a name says otherwise; secrets are None where not given."""

    home: Path
    bind: str
    port: int
    database_url: str = field(repr=False)  # may hold a password
    redis_url: str = field(repr=False)
    embedded_database: bool  # ours, since none was named
    embedded_broker: bool
    fleet_toml: Path | None
    public_url: str
    heartbeat_secs: int
    offline_after_secs: int
    confirm_secs: int
    scan_secs: float
    reconcile_secs: float
    look_secs: float
    look_threads: int
    host_grace_secs: int
    quarantine_grace_secs: int
    log_limit_mb: int
    keep_secs: int
    keep_failed_secs: int
    disk_floor_mb: int
    probe_secs: float
    least_disk_mb: int
    most_load: float
    worker_threads: int
    web_threads: int
    secrets: Mapping[str, str] = field(repr=False)
    review_quiet_secs: float = 10.0
    keep_deliveries_days: int = 30

    @property
    def socket_folder(self) -> Path:
        return self.home / "run"

    def secret(self, name: str | None, file: str | None = None) -> str | None:
        """The secret that the environment holds as `name` (or `name`_FILE), or that stands in `file`."""
        if file:
            return _read_file(Path(file))
        return self.secrets.get(name) if name else None


def read(environ: Mapping[str, str]) -> Config:
    """The settings in `environ`. Raises Wrong."""
    look = _Look(environ)
    home = Path(look.text("FLEET_HOME", str(default_home(environ)))).expanduser().absolute()
    port = look.number("PORT", 9090, int, 0, 65535)
    database, redis = look.text("DATABASE_URL", ""), look.text("REDIS_URL", "")
    config = Config(
        home=home,
        bind=look.text("FLEET_BIND", "127.0.0.1"),
        port=port,
        database_url=look.database_url(database) if database else embedded_database_url(home),
        redis_url=redis or f"redis+socket://{home}/run/valkey.sock",
        embedded_database=not database,
        embedded_broker=not redis,
        fleet_toml=look.file("FLEET_CONFIG"),
        public_url=look.text("FLEET_PUBLIC_URL", f"http://127.0.0.1:{port}").rstrip("/"),
        heartbeat_secs=look.number("FLEET_HEARTBEAT_SECS", 60, int, 1, 3600),
        offline_after_secs=look.number("FLEET_OFFLINE_AFTER_SECS", 180, int, 1, 86400),
        confirm_secs=look.number("FLEET_CONFIRM_SECS", 30, int, 1, 3600),
        scan_secs=look.number("FLEET_SCAN_SECS", 5.0, float, 0.1, 3600),
        reconcile_secs=look.number("FLEET_RECONCILE_SECS", 60.0, float, 0.5, 86400),
        look_secs=look.number("FLEET_LOOK_SECS", 1.0, float, 0.1, 3600),
        look_threads=look.number("FLEET_LOOK_THREADS", 16, int, 1, 256),
        host_grace_secs=look.number("FLEET_HOST_GRACE_SECS", 300, int, 1, 86400),
        quarantine_grace_secs=look.number("FLEET_QUARANTINE_GRACE_SECS", 3600, int, 1, 7 * 86400),
        log_limit_mb=look.number("FLEET_LOG_LIMIT_MB", 128, int, 1, 4096),
        keep_secs=look.number("FLEET_KEEP_SECS", 86400, int, 0, 365 * 86400),
        keep_failed_secs=look.number("FLEET_KEEP_FAILED_SECS", 7 * 86400, int, 0, 365 * 86400),
        disk_floor_mb=look.number("FLEET_DISK_FLOOR_MB", 1024, int, 0, 1 << 30),
        probe_secs=look.number("FLEET_PROBE_SECS", 60.0, float, 0.5, 86400),
        least_disk_mb=look.number("FLEET_LEAST_DISK_MB", 512, int, 0, 1 << 30),
        most_load=look.number("FLEET_MOST_LOAD", 16.0, float, 0.1, 10_000),
        worker_threads=look.number("FLEET_WORKER_THREADS", 8, int, 1, 64),
        web_threads=look.number("FLEET_WEB_THREADS", 64, int, 4, 1000),
        secrets=look.secrets(home),
        review_quiet_secs=look.number("FLEET_REVIEW_QUIET_SECS", 10.0, float, 0, 3600),
        keep_deliveries_days=look.number("FLEET_KEEP_DELIVERIES_DAYS", 30, int, 1, 3650),
    )
    if not database and len(str(home / "run" / ".s.PGSQL.5432")) >= SOCKET_PATH_LIMIT:
        look.faults.append(f"FLEET_HOME {home} is too long for a unix socket: choose a path of at most 80 characters.")
    if config.offline_after_secs <= config.heartbeat_secs:
        look.faults.append("FLEET_OFFLINE_AFTER_SECS must be longer than FLEET_HEARTBEAT_SECS.")
    if look.faults:
        raise Wrong(look.faults)
    return config


def default_home(environ: Mapping[str, str]) -> Path:
    """Where data go when FLEET_HOME is not set; root's must be readable by the user Postgres runs as."""
    if os.geteuid() == 0:
        return Path("/var/lib/agent-fleet")
    data = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME", "~")) / ".local" / "share")
    return Path(data) / "agent-fleet"


def embedded_database_url(home: Path) -> str:
    return f"postgresql+psycopg://fleet@/fleet?host={home}/run"


class _Look:
    """Reads names from the environment and keeps every fault it meets."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[str] = []

    def text(self, name: str, default: str) -> str:
        file = self.environ.get(f"{name}_FILE")
        if file:
            return self.secret_file(name, file) or default
        return self.environ.get(name) or default

    def number(self, name: str, default: N, kind: Callable[[str], N], low: float, high: float) -> N:
        given = self.text(name, "")
        if not given:
            return default
        try:
            value = kind(given)
        except ValueError:
            value = kind("-1")
        if low <= value <= high:
            return value
        self.faults.append(f"{name}={given!r} must be a number from {low} to {high}.")
        return default

    def file(self, name: str) -> Path | None:
        given = self.environ.get(name)
        if not given:
            return None
        path = Path(given).expanduser().absolute()
        if not path.is_file():
            self.faults.append(f"{name} names {path}, and there is no such file.")
        return path

    def database_url(self, url: str) -> str:
        scheme, _, rest = url.partition("://")
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg") or not rest:
            self.faults.append("DATABASE_URL must look like postgresql://user:password@host:5432/name.")
        return f"postgresql+psycopg://{rest}"

    def secrets(self, home: Path) -> dict[str, str]:
        """Every value of the environment that may be named as a secret: NAME, or the content of NAME_FILE;
        for our own names also what the embedded default keeps in its home."""
        found = {name: value for name, value in self.environ.items() if value}
        for name, file in self.environ.items():
            if name.endswith("_FILE") and (value := self.secret_file(name, file, own=name[:-5] in SECRETS)):
                found[name[:-5]] = value
        for name in SECRETS:
            kept = secret_path(home, name)
            if name not in found and (value := _read_file(kept)):
                found[name] = value
        return found

    def secret_file(self, name: str, file: str, own: bool = True) -> str | None:
        value = _read_file(Path(file))
        if own and value is None:
            self.faults.append(f"{name} names {file}, which cannot be read or is empty.")
        return value


def secret_path(home: Path, name: str) -> Path:
    """Where the embedded default keeps the secret `name`: FLEET_OPERATOR_TOKEN -> secrets/operator-token."""
    return home / "secrets" / name.removeprefix("FLEET_").lower().replace("_", "-")


def _read_file(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError, ValueError):
        return None


# --- fleet.toml ------------------------------------------------------------------------------------------


class _Strict(Schema):
    class Meta:
        unknown = RAISE


def _is_http(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValidationError("must be an http or https address")


class ForgeSchema(_Strict):
    url = fields.String(required=True, validate=_is_http)
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


class RepositorySchema(_Strict):
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


class SlotsSchema(_Strict):
    agent_type = fields.String(required=True, validate=validate.Regexp(r"^[A-Za-z0-9_.-]+$"))
    max_concurrency = fields.Integer(strict=True, load_default=1, validate=validate.Range(1, 1000))
    capabilities = fields.List(fields.String(validate=validate.Length(1)), load_default=list)


def _is_host_key(lines: str) -> None:
    """Each line as known_hosts has it, without the host: a kind of key and the key."""
    if not all(re.match(r"\s*(ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+ +\S+", line) for line in lines.strip().splitlines()):
        raise ValidationError("each line must be a public key: ssh-ed25519 AAAA... (`fleet hosts test` shows it)")


class HostSchema(_Strict):
    """A machine that we go to. `jump_only` is for one that others are reached over and that runs nothing itself."""

    host_id = fields.String(required=True, validate=validate.Regexp(r"^[A-Za-z0-9_.-]{1,100}\Z"))
    hostname = fields.String(required=True, validate=validate.Regexp(r"^[^\s/@]+\Z", error="must be a name or address"))
    ssh_user = fields.String(load_default=None, allow_none=True)
    ssh_port = fields.Integer(strict=True, load_default=22, validate=validate.Range(1, 65535))
    ssh_key_path = fields.String(load_default=None, allow_none=True)
    host_key = fields.String(load_default=None, allow_none=True, validate=_is_host_key)
    proxy_jump = fields.String(load_default=None, allow_none=True)
    jump_only = fields.Boolean(load_default=False)
    work_dir = fields.String(load_default=None, allow_none=True, validate=validate.Regexp(
        r"^(~|~?/[A-Za-z0-9/._+@~-]*)\Z", error="must be absolute or begin with ~/, of letters, digits and /._+@-"
    ))  # fmt: skip
    labels = fields.List(fields.String(validate=validate.Length(1, 100)), load_default=list)
    agents = fields.List(fields.Nested(SlotsSchema), load_default=list)
    clis = cli_schemas.clis_field()

    @validates_schema(skip_on_field_errors=False)
    def _has_something_to_do(self, given: dict[str, Any], **_: Any) -> None:
        if isinstance(given.get("agents", []), list) and not given.get("agents") and not given.get("jump_only"):
            raise ValidationError("Name at least one kind of CLI, or set jump_only = true.", "agents")


class FleetTomlSchema(_Strict):
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
    """What fleet.toml declares: forges, repositories, hosts, clis, with defaults filled in. Raises Wrong."""
    try:
        declared: Declared = FleetTomlSchema().load(tomllib.loads(path.read_text()))
    except OSError as error:
        raise Wrong([f"{path} cannot be read: {error.strerror}."]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Wrong([f"{path} is not TOML: {error}."]) from error
    except ValidationError as error:
        told = [f"{where}: {what}" for where, what in flat(error.messages)]
        names = references.faults(FleetTomlSchema().load({}) | dict(error.valid_data or {}))
        raise Wrong([f"{path}: {fault}" for fault in told + names]) from error
    cli_schemas.price_the_clis(declared)
    if faults := _contradictions(declared) + references.faults(declared) + cli_schemas.faults(declared):
        raise Wrong([f"{path}: {fault}" for fault in faults])
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


def _contradictions(declared: Declared) -> list[str]:
    ids = [host["host_id"] for host in declared["hosts"]]
    faults = jumps_to_nowhere({host["host_id"]: host["proxy_jump"] for host in declared["hosts"]})
    for host in declared["hosts"]:
        kinds = [agent["agent_type"] for agent in host["agents"]]
        faults += [
            f"hosts: {host['host_id']} has {kind!r} twice" for kind in sorted({k for k in kinds if kinds.count(k) > 1})
        ]
    faults += [f"hosts: {host_id!r} is declared twice" for host_id in sorted({i for i in ids if ids.count(i) > 1})]
    return faults


def jumps_to_nowhere(jumps: Mapping[str, str | None]) -> list[str]:
    """What is wrong with the hosts that others are reached over: each has to be there, and to be reached itself."""
    return [
        f"hosts: {host_id} is reached over {over!r}, which is not declared"
        if over not in jumps
        else f"hosts: {host_id} is reached over {over}, which is itself reached over another: one jump is possible"
        for host_id, over in jumps.items()
        if over is not None and (over not in jumps or jumps[over] is not None)
    ]

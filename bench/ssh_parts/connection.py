"""Measures one SSH connection: a poll, a bare command, and a hundred megabytes of output, beside OpenSSH."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import sqlalchemy as sa

from app.cli.demo.stage import Stage
from app.domain.host import Machine
from app.store import hosts
from app.store.engine import fetch_one, reading_connection
from app.store.tables import runs
from bench.figures import figure
from tests import sshd as servers_of_ssh
from tests.sshd import Sshd
from workers.hosts.client import HostClient
from workers.ssh.client import SshClient
from workers.ssh.deadlines import Deadlines
from workers.worker import Limits

BULK_MB, BULK_TIMES, POLLS = 100, 3, 100


def measure_polls(set_: Stage, channel: list[float]) -> None:
    """Polls of one host for all its runs, from this process."""
    with set_.fleet.engine.begin() as conn:
        mine = list(conn.execute(sa.select(runs.c.name).where(runs.c.host_id == "host-1")).scalars())
    host, body = first_host(set_), {"runs": [{"run": name} for name in mine]}
    with closing(HostClient(Path(), set_.fleet.instance)) as client:
        client.request(host, "poll", body)
        spent = time.process_time()
        took = [timed(lambda: client.request(host, "poll", body)) for _ in range(POLLS)]
        cpu = 1000 * (time.process_time() - spent) / POLLS
    name = f"ssh: a poll of a host with {len(mine)} runs"
    figure(f"{name}, p50", statistics.median(took), "ms", statistics.median(channel), POLLS)
    figure(f"{name}, CPU here", cpu, "ms", statistics.median(channel), POLLS)


def measure_bulk(set_: Stage, sshd: Sshd, ssh: list[str]) -> None:
    """A run's output: fetched from its host, and stored by a worker, beside `ssh host cat` and a raw channel."""
    big, host = sshd.folder / "big", first_host(set_)
    big.write_bytes(os.urandom(1 << 20) * BULK_MB)
    bare = min(timed(lambda: quietly([*ssh, "cat", str(big)])) for _ in range(BULK_TIMES))
    with closing(SshClient(host.address, Deadlines())) as connection:
        raw = min(timed(lambda: connection.run(f"cat {big}", most=BULK_MB + 1 << 20)) for _ in range(BULK_TIMES))
    with closing(HostClient(Path(), lambda: "bench")) as client:
        _print_big(client, host, big)
        fetched = min(timed(lambda: _fetch(client, host)) for _ in range(BULK_TIMES))
    stored = min(_stored(set_) for _ in range(BULK_TIMES))
    for name, took in (("raw channel", raw), ("fetched", fetched), ("fetched and stored", stored)):
        figure(f"ssh: {BULK_MB} MB of output, {name}", BULK_MB / took * 1000, "MB/s", BULK_MB / bare * 1000, BULK_TIMES)


def _print_big(client: HostClient, host: Machine, big: Path) -> None:
    """A run that prints the file, to its end."""
    agent = {"argv": ["cat", str(big)], "prompt": ""}
    client.request(host, "start", {"run": "big.1", "task": "big", "agent": agent})
    body = {"runs": [{"run": "big.1"}], "limit": 1}
    until(lambda: bool(client.request(host, "poll", body)["runs"]["big.1"].get("result")), "a hundred megabytes")


def _fetch(client: HostClient, host: Machine) -> None:
    offset = 0
    while offset < BULK_MB << 20:
        body = {"runs": [{"run": "big.1", "stdout": offset}], "limit": Limits().poll_bytes}
        offset += len(client.request(host, "poll", body)["runs"]["big.1"]["stdout"]["data"])


def _stored(set_: Stage) -> float:
    """How long the workers take for as much output of a run, from the moment when the first of it is in the database,
    in milliseconds."""
    task_id, size = create_task(set_, "much", "much"), BULK_MB << 20
    with reading_connection(set_.fleet.engine) as conn:
        while not (have := _stored_of(conn, task_id)):
            time.sleep(0.005)
        began, first = time.monotonic(), have
        while have < size:
            time.sleep(0.01)
            have = _stored_of(conn, task_id)
        return (time.monotonic() - began) * 1000 * size / (size - first)


def _stored_of(conn: sa.Connection, task_id: str) -> int:
    """Asked so that the question costs next to nothing: it is asked on the cores that are measured."""
    asked = "SELECT r.stdout_size FROM runs r JOIN tasks t ON t.id = r.task_pk WHERE t.task_id = %(task)s"
    return int((fetch_one(conn, asked, task=task_id) or {"stdout_size": 0})["stdout_size"])


def kept_ssh(sshd: Sshd) -> list[str]:
    """OpenSSH with a connection that stays open."""
    options = {
        "ControlMaster": "auto", "ControlPath": str(sshd.folder / "ctl"), "ControlPersist": "60", "LogLevel": "ERROR",
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "IdentitiesOnly": "yes",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    where = ["-p", str(sshd.port), f"{servers_of_ssh.user_name()}@{sshd.addresses[0]}"]
    return ["ssh", "-F", "none", "-i", sshd.key_path, *words, *where]


def time_ssh(ssh: list[str], count: int = 50) -> list[float]:
    """Milliseconds of `ssh host true` over an open connection."""
    if not shutil.which("ssh"):
        return [float("nan")]
    quietly([*ssh, "true"])
    return [timed(lambda: quietly([*ssh, "true"])) for _ in range(count)]


def time_channel(set_: Stage, command: str, count: int = 50) -> list[float]:
    """Milliseconds of a command on a raw channel of an open connection."""
    with closing(SshClient(first_host(set_).address, Deadlines())) as connection:
        connection.run(command)
        return [timed(lambda: connection.run(command)) for _ in range(count)]


def first_host(set_: Stage) -> Machine:
    with set_.fleet.engine.begin() as conn:
        return hosts.machines(conn, ["host-1"])["host-1"]


def create_task(set_: Stage, title: str, needs: str = "python") -> str:
    asked = {"title": title, "requirements": "Sleep.", "required_capabilities": [needs], "wants_pull_request": False}
    token = {"Authorization": f"Bearer {set_.config.secret('FLEET_OPERATOR_TOKEN')}"}
    told = httpx.post(f"{set_.config.public_url}/api/v1/tasks", json=asked, headers=token, timeout=30)
    return str(told.raise_for_status().json()["task_id"])


def until(happened: Callable[[], bool], what: str, secs: float = 120) -> None:
    until = time.monotonic() + secs
    while not happened():
        if time.monotonic() > until:
            raise SystemExit(f"never: {what}")
        time.sleep(0.05)


def timed(step: Callable[[], object]) -> float:
    began = time.monotonic()
    step()
    return 1000 * (time.monotonic() - began)


def quietly(argv: list[str]) -> None:
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True)

"""ssh: starts, looks, memory, connections over a real sshd, beside a bare warm `ssh host true` and a raw channel.

fleet bench ssh [--hosts 5] [--runs 20] [--workers 2] [--rate 10] [--secs 10]
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import sqlalchemy as sa

from app.cli.demo.stage import Stage, stage
from app.cli.local.process_manager import ChildProcess
from app.domain.host import Fitness
from app.store import hosts as host_rows
from app.store.engine import only, reading
from app.store.tables import events, runs, tasks
from app.store.tables import host_polls as looks_table
from bench.figures import figure, quantile
from tests import sshd as servers_of_ssh
from tests.silence import Wire, wire
from tests.sshd import Sshd
from workers.hosts import client
from workers.runs import poll
from workers.ssh import pool
from workers.ssh.client import Line

WARM_UP, BULK_MB, BULK_TIMES = 5, 100, 3
SETTINGS = (
    "MaxStartups 1000\nMaxSessions 10"  # one sshd plays all hosts: the limit on strangers is not what is measured
)
CLIS = """\
[clis.sleeper]
argv = ["sh", "-c", "cat > /dev/null; sleep 600"]

[clis.talker]
argv = ["cat", "{big}"]
"""


def main() -> None:
    given = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="fleet-bench-ssh-"))
    folder.chmod(0o755)
    try:
        program = servers_of_ssh.find(folder / "program")
        with servers_of_ssh.running(folder / "sshd", program, given.hosts, SETTINGS) as sshd:
            room = -(-given.runs // given.hosts) + WARM_UP
            agents = [
                {"agent_type": "sleeper", "max_concurrency": room, "capabilities": ["python"]},
                {"agent_type": "talker", "max_concurrency": 1, "capabilities": ["much"]},
            ]
            with wire(sshd.addresses[-1], sshd.port) as hole:
                ports = {given.hosts - 1: {"ssh_port": hole.port}}
                hosts = "".join(sshd.toml(at, agents=agents, **ports.get(at, {})) for at in range(given.hosts))
                hosts += CLIS.format(big=sshd.folder / "big")
                with stage(hosts=hosts, FLEET_LOOK_SECS="1", FLEET_SCAN_SECS="5", FLEET_RECONCILE_SECS="60") as set_:
                    try:
                        _measure(set_, sshd, given, hole)
                    finally:
                        _end_all(sshd)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(sshd: Sshd) -> None:
    """At once: to cancel a thousand runs one after the other takes minutes."""
    for path in (sshd.folder / "work").glob("*/runs/*/*/state.json"):
        state = json.loads(path.read_text())
        for end, number in ((os.kill, state["pid"]), (os.killpg, state["agent_pgid"])):
            if number and not path.with_name("result.json").exists():
                with suppress(ProcessLookupError):
                    end(number, signal.SIGKILL)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("fleet bench ssh")
    for name, default in (("hosts", 5), ("runs", 20), ("workers", 2), ("secs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=10.0, help="starts a second")
    return parser.parse_args()


def _measure(set_: Stage, sshd: Sshd, given: argparse.Namespace, hole: Wire) -> None:
    for number in range(1, given.workers):
        worker = next(child for child in set_.manager.children if child.name == "worker")
        set_.manager.add(ChildProcess(f"worker-{number + 1}", worker.argv, worker.env, log=worker.log))
    _until(lambda: _fit(set_) == given.hosts, "all hosts fit")
    ssh = _kept_ssh(sshd)
    shell, channel, python = _bare_ssh(ssh), _bare(set_, "true"), _bare(set_, "python3 -I -S -c pass")
    figure("ssh: raw channel starting a bare Python, p50", statistics.median(python), "ms", statistics.median(channel))
    for number in range(WARM_UP):
        _ask_for_one(set_, f"warm-up {number}")
        time.sleep(0.2)
    _until(lambda: _started(set_) == WARM_UP, "the first runs")
    _until(
        lambda: _connections(set_, sshd.port, hole.port) >= given.hosts * given.workers - 1,
        "a line of each worker to each host",
        300,
    )
    before = _memory(set_)
    for number in range(given.runs):
        _ask_for_one(set_, f"run {number}")
        time.sleep(1 / given.rate)
    _until(lambda: _started(set_) == WARM_UP + given.runs, "every run started")
    _starts(set_, sshd, shell, channel)
    _following(set_, sshd, given, hole, before)
    _looks(set_, channel)
    _bulk(set_, sshd, ssh)
    _black_hole(set_, given, hole)
    _quietly([*ssh[:-1], "-O", "exit", ssh[-1]])


def _starts(set_: Stage, sshd: Sshd, shell: list[float], channel: list[float]) -> None:
    """From the commit of a task to the exec of its CLI."""
    with set_.fleet.engine.begin() as conn:
        asked = sa.select(runs.c.name, events.c.at, runs.c.assigned_at).join(events, events.c.task_pk == runs.c.task_pk)
        found = list(conn.execute(asked.where(events.c.kind == "requested").order_by(runs.c.id)))
        at = {name: at.timestamp() for name, at, _ in found}
        placed = [1000 * (assigned - at).total_seconds() for _, at, assigned in found][WARM_UP:]
    states = [json.loads(path.read_text()) for path in (sshd.folder / "work").glob("*/runs/*/*/state.json")]
    took = [1000 * (state["agent_started_at"] - at[state["run"]]) for state in states if state.get("agent_started_at")]
    took = took[WARM_UP:]
    for share in (0.5, 0.99):
        figure(f"ssh: task committed -> placed, p{share * 100:.0f}", quantile(placed, share), "ms", runs=len(placed))
        name = f"ssh: task committed -> CLI started, p{share * 100:.0f}"
        figure(name, quantile(took, share), "ms", quantile(shell, share), len(took))
        figure(f"{name}, over a raw channel", quantile(took, share), "ms", quantile(channel, share), len(took))
    figure("ssh: bare warm `ssh host true`, p50", statistics.median(shell), "ms", runs=len(shell))
    figure("ssh: raw channel `true`, p50", statistics.median(channel), "ms", runs=len(channel))


def _following(set_: Stage, sshd: Sshd, given: argparse.Namespace, hole: Wire, before: float) -> None:
    """What idle runs cost the workers: memory, CPU, connections, threads."""
    workers = _workers(set_)
    name = f"ssh: CPU of {len(workers)} workers following {given.hosts} hosts"
    ways: dict[str, Callable[[], object]] = {
        "as they choose": lambda: time.sleep(1),
        "a look a second": lambda: _look_now(set_),
    }
    for how, look in ways.items():
        known = seen = _answers(set_)
        began, spent = time.monotonic(), sum(_cpu(worker) for worker in workers)
        for _ in range(given.secs):
            look()
            seen = seen | _answers(set_)
        took, used = time.monotonic() - began, sum(_cpu(worker) for worker in workers) - spent
        looked = max(1, len(seen - known))
        figure(f"{name}, {how}", 100 * used / took, "% of a core", 10, looked)
        figure(f"ssh: CPU of a worker for each look, {how}", 1000 * used / looked, "ms", runs=looked)
    memory = _memory(set_)
    figure("ssh: memory of a worker", memory / len(workers), "MB", runs=len(workers))
    figure("ssh: memory for each idle run", 1024 * (memory - before) / given.runs, "KB", 50, given.runs)
    figure("ssh: threads of a worker", statistics.mean(worker.num_threads() for worker in workers), "threads")
    each = _connections(set_, sshd.port, hole.port) / given.hosts / len(workers)
    figure("ssh: connections a host and worker", each, "connections", 1)


def _answers(set_: Stage) -> set[tuple[str, datetime]]:
    """Which hosts answered a look last, and when. Asked once a second: of two looks at a host in between one counts."""
    with set_.fleet.engine.begin() as conn:
        return {
            (name, at) for name, at in conn.execute(sa.select(looks_table.c.host_id, looks_table.c.answered_at)) if at
        }


def _look_now(set_: Stage) -> dict[str, float]:
    """Have the workers look at every host at once; after a second, how late each was looked at, in milliseconds."""
    at, until = set_.fleet.clock(), time.monotonic() + 1
    with set_.fleet.engine.begin() as conn:
        now = {"next_at": at, "consecutive": 0}
        conn.execute(sa.update(looks_table).where(looks_table.c.failing_since.is_(None)).values(now))
    time.sleep(max(0.0, until - time.monotonic()))
    with set_.fleet.engine.begin() as conn:
        found = conn.execute(sa.select(looks_table.c.host_id, looks_table.c.answered_at))
        return {name: 1000 * (moment - at).total_seconds() for name, moment in found if moment and moment > at}


def _black_hole(set_: Stage, given: argparse.Namespace, hole: Wire) -> None:
    """How late the other hosts are looked at after the first one of a round while the last one swallows everything,
    beside how late before."""
    dead = f"host-{given.hosts}"

    def lateness() -> list[float]:
        rounds = [_look_now(set_) for _ in range(given.secs)]
        return [late - min(looks.values()) for looks in rounds for name, late in looks.items() if name != dead]

    before = lateness()
    hole.silent = True
    after = lateness()
    for share in (0.5, 0.99):
        name = f"ssh: a look at another host while one is a black hole, p{share * 100:.0f}"
        figure(name, quantile(after, share), "ms", quantile(before, share), len(after))


def _looks(set_: Stage, channel: list[float]) -> None:
    """One look at a host for all its runs, from this process."""
    with set_.fleet.engine.begin() as conn:
        host: Any = host_rows.host(conn, "host-1")
        mine = list(conn.execute(sa.select(runs.c.name).where(runs.c.host_id == "host-1")).scalars())
    asked = {"home": host["work_dir"], "instance": set_.fleet.instance(), "runs": [{"run": name} for name in mine]}
    client.ask(host, "poll", asked)
    took, spent = [], time.process_time()
    for _ in range(100):
        began = time.monotonic()
        client.ask(host, "poll", asked)
        took.append(1000 * (time.monotonic() - began))
    cpu = 1000 * (time.process_time() - spent) / 100
    name = f"ssh: a look at a host with {len(mine)} runs"
    figure(f"{name}, p50", statistics.median(took), "ms", statistics.median(channel), 100)
    figure(f"{name}, CPU here", cpu, "ms", statistics.median(channel), 100)
    pool.forget()


def _kept_ssh(sshd: Sshd) -> list[str]:
    """OpenSSH with a connection that is kept."""
    options = {
        "ControlMaster": "auto", "ControlPath": str(sshd.folder / "ctl"), "ControlPersist": "60", "LogLevel": "ERROR",
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "IdentitiesOnly": "yes",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    where = ["-p", str(sshd.port), f"{servers_of_ssh.user_name()}@{sshd.addresses[0]}"]
    return ["ssh", "-F", "none", "-i", sshd.key_path, *words, *where]


def _bare_ssh(ssh: list[str], count: int = 50) -> list[float]:
    if not shutil.which("ssh"):
        return [float("nan")]
    _quietly([*ssh, "true"])
    return [_timed(lambda: _quietly([*ssh, "true"])) for _ in range(count)]


def _bulk(set_: Stage, sshd: Sshd, ssh: list[str]) -> None:
    """A run's output, fetched from its host, and stored as a worker does it, beside `ssh host cat` and a raw channel."""
    big = sshd.folder / "big"
    big.write_bytes(os.urandom(1 << 20) * BULK_MB)
    with set_.fleet.engine.begin() as conn:
        host: Any = host_rows.host(conn, "host-1")
    about = {"home": host["work_dir"], "instance": "bench"}
    agent = {"argv": ["cat", str(big)], "prompt": ""}
    client.ask(host, "start", about | {"run": "big.1", "task": "big", "agent": agent})
    asked = about | {"runs": [{"run": "big.1"}], "limit": 1}
    _until(lambda: bool(client.ask(host, "poll", asked)["runs"]["big.1"].get("result")), "a hundred megabytes")
    line = Line(pool.address_of(host))
    bare = min(_timed(lambda: _quietly([*ssh, "cat", str(big)])) for _ in range(BULK_TIMES))
    raw = min(_timed(lambda: line.run(f"cat {big}", most=BULK_MB + 1 << 20)) for _ in range(BULK_TIMES))
    line.close()
    fetched = min(_timed(lambda: _fetch(host, about)) for _ in range(BULK_TIMES))
    stored = min(_stored(set_) for _ in range(BULK_TIMES))
    for name, took in (("raw channel", raw), ("fetched", fetched), ("fetched and stored", stored)):
        figure(f"ssh: {BULK_MB} MB of output, {name}", BULK_MB / took * 1000, "MB/s", BULK_MB / bare * 1000, BULK_TIMES)
    pool.forget()


def _fetch(host: Any, about: dict[str, Any]) -> None:
    offset = 0
    while offset < BULK_MB << 20:
        asked = about | {"runs": [{"run": "big.1", "stdout": offset}], "limit": poll.PIECE}
        offset += len(client.ask(host, "poll", asked)["runs"]["big.1"]["stdout"]["data"])


def _stored(set_: Stage) -> float:
    """How long the workers take for as much output of a run, from the moment when the first of it is in the database,
    in milliseconds."""
    task_id, size = _ask_for_one(set_, "much", "much"), BULK_MB << 20
    with reading(set_.fleet.engine) as conn:
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
    return int((only(conn, asked, task=task_id) or {"stdout_size": 0})["stdout_size"])


def _bare(set_: Stage, command: str, count: int = 50) -> list[float]:
    """A command on a raw channel of a connection that is kept."""
    with set_.fleet.engine.begin() as conn:
        line = Line(pool.address_of(host_rows.host(conn, "host-1")))
    line.run(command)
    found = [_timed(lambda: line.run(command)) for _ in range(count)]
    line.close()
    return found


def _ask_for_one(set_: Stage, title: str, needs: str = "python") -> str:
    asked = {"title": title, "requirements": "Sleep.", "required_capabilities": [needs], "wants_pull_request": False}
    token = {"Authorization": f"Bearer {set_.config.secret('FLEET_OPERATOR_TOKEN')}"}
    told = httpx.post(f"{set_.config.public_url}/api/v1/tasks", json=asked, headers=token, timeout=30)
    return str(told.raise_for_status().json()["task_id"])


def _fit(set_: Stage) -> int:
    with set_.fleet.engine.begin() as conn:
        return sum(host.fitness is Fitness.FIT for host in host_rows.all_hosts(conn))


def _started(set_: Stage) -> int:
    with set_.fleet.engine.begin() as conn:
        running = sa.select(sa.func.count()).select_from(tasks).where(tasks.c.state == "running")
        return int(conn.execute(running).scalar_one())


def _until(happened: Callable[[], bool], what: str, secs: float = 120) -> None:
    until = time.monotonic() + secs
    while not happened():
        if time.monotonic() > until:
            raise SystemExit(f"never: {what}")
        time.sleep(0.05)


def _workers(set_: Stage) -> list[psutil.Process]:
    pids = [child.process.pid for child in set_.manager.children if child.name.startswith("worker") and child.process]
    return [psutil.Process(pid) for pid in pids]


def _connections(set_: Stage, *ports: int) -> int:
    sockets = [one for worker in _workers(set_) for one in worker.net_connections("tcp")]
    return sum(bool(one.raddr) and one.raddr.port in ports and one.status == "ESTABLISHED" for one in sockets)


def _memory(set_: Stage) -> float:
    """What the workers hold that is theirs alone, in MB."""
    return float(sum(worker.memory_full_info().uss for worker in _workers(set_))) / (1 << 20)


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _timed(step: Callable[[], object]) -> float:
    began = time.monotonic()
    step()
    return 1000 * (time.monotonic() - began)


def _quietly(argv: list[str]) -> None:
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True)


if __name__ == "__main__":
    main()

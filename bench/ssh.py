"""ssh: starts, polls, memory, connections over a real sshd, beside a bare warm `ssh host true` and a raw channel.

fleet bench ssh [--hosts 5] [--runs 20] [--workers 2] [--rate 10] [--secs 10]
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil
import sqlalchemy as sa

from app.cli.demo.stage import Stage, stage
from app.cli.local.process_manager import ChildProcess
from app.domain.host import Fitness
from app.store import hosts as host_rows
from app.store.tables import events, host_polls, runs, tasks
from bench.figures import figure, quantile
from bench.ssh_parts.connection import (
    create_task,
    kept_ssh,
    measure_bulk,
    measure_polls,
    quietly,
    time_channel,
    time_ssh,
    until,
)
from tests import sshd as servers_of_ssh
from tests.find_sshd import find
from tests.silent_proxy import Wire, wire
from tests.sshd import Sshd

WARM_UP = 5
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
        program = find(folder / "program")
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
    until(lambda: _fit(set_) == given.hosts, "all hosts fit")
    ssh = kept_ssh(sshd)
    shell, channel, python = time_ssh(ssh), time_channel(set_, "true"), time_channel(set_, "python3 -I -S -c pass")
    figure("ssh: raw channel starting a bare Python, p50", statistics.median(python), "ms", statistics.median(channel))
    for number in range(WARM_UP):
        create_task(set_, f"warm-up {number}")
        time.sleep(0.2)
    until(lambda: _started(set_) == WARM_UP, "the first runs")
    until(
        lambda: _connections(set_, sshd.port, hole.port) >= given.hosts * given.workers - 1,
        "a connection of each worker to each host",
        300,
    )
    before = _memory(set_)
    for number in range(given.runs):
        create_task(set_, f"run {number}")
        time.sleep(1 / given.rate)
    until(lambda: _started(set_) == WARM_UP + given.runs, "every run started")
    _starts(set_, sshd, shell, channel)
    _following(set_, sshd, given, hole, before)
    measure_polls(set_, channel)
    measure_bulk(set_, sshd, ssh)
    _black_hole(set_, given, hole)
    quietly([*ssh[:-1], "-O", "exit", ssh[-1]])


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
    """What following idle runs costs the workers: memory, CPU, connections, threads."""
    workers = _workers(set_)
    name = f"ssh: CPU of {len(workers)} workers following {given.hosts} hosts"
    ways: dict[str, Callable[[], object]] = {
        "as they choose": lambda: time.sleep(1),
        "a poll a second": lambda: _poll_now(set_),
    }
    for how, act in ways.items():
        known = seen = _answers(set_)
        began, spent = time.monotonic(), sum(_cpu(worker) for worker in workers)
        for _ in range(given.secs):
            act()
            seen = seen | _answers(set_)
        took, used = time.monotonic() - began, sum(_cpu(worker) for worker in workers) - spent
        polled = max(1, len(seen - known))
        figure(f"{name}, {how}", 100 * used / took, "% of a core", 10, polled)
        figure(f"ssh: CPU of a worker for each poll, {how}", 1000 * used / polled, "ms", runs=polled)
    memory = _memory(set_)
    figure("ssh: memory of a worker", memory / len(workers), "MB", runs=len(workers))
    figure("ssh: memory for each idle run", 1024 * (memory - before) / given.runs, "KB", 50, given.runs)
    figure("ssh: threads of a worker", statistics.mean(worker.num_threads() for worker in workers), "threads")
    each = _connections(set_, sshd.port, hole.port) / given.hosts / len(workers)
    figure("ssh: connections a host and worker", each, "connections", 1)


def _answers(set_: Stage) -> set[tuple[str, datetime]]:
    """Hosts and when they last answered a poll. Read once a second: of two polls in between, one counts."""
    with set_.fleet.engine.begin() as conn:
        return {
            (name, at) for name, at in conn.execute(sa.select(host_polls.c.host_id, host_polls.c.answered_at)) if at
        }


def _poll_now(set_: Stage) -> dict[str, float]:
    """Make every host due for a poll; after a second, returns how late each was polled, in milliseconds."""
    at, until = set_.fleet.clock(), time.monotonic() + 1
    with set_.fleet.engine.begin() as conn:
        now = {"next_at": at, "consecutive": 0}
        conn.execute(sa.update(host_polls).where(host_polls.c.failing_since.is_(None)).values(now))
    time.sleep(max(0.0, until - time.monotonic()))
    with set_.fleet.engine.begin() as conn:
        found = conn.execute(sa.select(host_polls.c.host_id, host_polls.c.answered_at))
        return {name: 1000 * (moment - at).total_seconds() for name, moment in found if moment and moment > at}


def _black_hole(set_: Stage, given: argparse.Namespace, hole: Wire) -> None:
    """How late the other hosts are polled after the first one, before and after one host drops all packets."""
    dead = f"host-{given.hosts}"

    def lateness() -> list[float]:
        rounds = [_poll_now(set_) for _ in range(given.secs)]
        return [late - min(polls.values()) for polls in rounds for name, late in polls.items() if name != dead]

    before = lateness()
    hole.silent = True
    after = lateness()
    for share in (0.5, 0.99):
        name = f"ssh: a poll of another host while one is a black hole, p{share * 100:.0f}"
        figure(name, quantile(after, share), "ms", quantile(before, share), len(after))


def _fit(set_: Stage) -> int:
    with set_.fleet.engine.begin() as conn:
        return sum(host.fitness is Fitness.FIT for host in host_rows.all_hosts(conn))


def _started(set_: Stage) -> int:
    with set_.fleet.engine.begin() as conn:
        running = sa.select(sa.func.count()).select_from(tasks).where(tasks.c.state == "running")
        return int(conn.execute(running).scalar_one())


def _workers(set_: Stage) -> list[psutil.Process]:
    pids = [child.process.pid for child in set_.manager.children if child.name.startswith("worker") and child.process]
    return [psutil.Process(pid) for pid in pids]


def _connections(set_: Stage, *ports: int) -> int:
    sockets = [one for worker in _workers(set_) for one in worker.net_connections("tcp")]
    return sum(bool(one.raddr) and one.raddr.port in ports and one.status == "ESTABLISHED" for one in sockets)


def _memory(set_: Stage) -> float:
    """Memory of the workers that no other process shares, in MB."""
    return float(sum(worker.memory_full_info().uss for worker in _workers(set_))) / (1 << 20)


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


if __name__ == "__main__":
    main()

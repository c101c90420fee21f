"""agent_start: what the pull agent takes to its first request and at --help, beside a bare Python.

FLEET_BENCH_TREE names another checkout: then its agent is the reference, in turns of one run.
"""

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.figures import figure

HERE = Path(__file__).parents[1]
OTHER = os.environ.get("FLEET_BENCH_TREE")
ROUNDS = 2 if os.environ.get("FLEET_BENCH_QUICK") else 7
FAKE_CLI = "#!/bin/sh\necho codex-cli 1.0\n"


@dataclass(frozen=True)
class Start:
    """What one start took; `memory` is the peak of the resident set."""

    secs: float
    cpu: float
    memory: float  # MB


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-agent-") as folder:
        cases = {"first request": _first_request, "--help": _help}
        for name, measure in cases.items():
            starts: list[Start] = []
            references: list[Start] = []
            for _ in range(ROUNDS):
                starts.append(measure(HERE, Path(folder)))
                references.append(measure(Path(OTHER), Path(folder)) if OTHER else _bare())
            _print(name, starts, references)


def _print(name: str, starts: list[Start], references: list[Start]) -> None:
    for what, unit in (("secs", "s"), ("cpu", "s of CPU"), ("memory", "MB")):
        value, against = (statistics.median(getattr(one, what) for one in found) for found in (starts, references))
        figure(f"agent start: {name}", value, unit, against, ROUNDS)


def _first_request(tree: Path, folder: Path) -> Start:
    """An agent with a state of its own, to the first byte that the server receives. The first start installs."""
    state = folder / tree.name
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        if not state.exists():
            _start_until_request(tree, state, server)
        return _start_until_request(tree, state, server)


def _start_until_request(tree: Path, state: Path, server: socket.socket) -> Start:
    cli = state / "bin" / "codex"
    cli.parent.mkdir(parents=True, exist_ok=True)
    cli.write_text(FAKE_CLI)
    cli.chmod(0o755)
    environ = _environ(tree) | {
        "PATH": f"{cli.parent}:{os.environ['PATH']}",
        "FLEET_ENROLL_TOKEN": "a-token-for-the-bench",
    }
    words = ["--server", f"http://127.0.0.1:{server.getsockname()[1]}", "--cli", "codex", "--state", str(state / "own")]
    began = time.monotonic()
    agent = subprocess.Popen(_agent(*words), env=environ, stderr=subprocess.DEVNULL)
    try:
        near, _ = server.accept()
        with near:
            near.recv(1)
            return Start(time.monotonic() - began, _cpu(agent.pid), _peak_memory(agent.pid))
    finally:
        agent.kill()
        agent.wait()


def _help(tree: Path, _: Path) -> Start:
    return _to_the_end(_agent("--help"), _environ(tree))


def _bare() -> Start:
    return _to_the_end([sys.executable, "-c", "pass"], dict(os.environ))


def _to_the_end(argv: list[str], environ: dict[str, str]) -> Start:
    began, quiet = time.monotonic(), [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    _, _, used = os.wait4(os.posix_spawn(argv[0], argv, environ, file_actions=quiet), 0)
    return Start(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _agent(*words: str) -> list[str]:
    return [sys.executable, "-m", "workers.agent", *words]


def _environ(tree: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_memory(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()

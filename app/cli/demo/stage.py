"""The demo's stage: the whole system beside a small forge, in a folder that goes when the demo is over."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import wiring
from app.cli.demo.forge_user import ForgeUser
from app.cli.local.launcher import TOP, check_git, running
from app.cli.local.process_manager import ChildProcess, ProcessFailed, ProcessManager, last_lines
from app.config.settings import Config, ConfigError
from app.ports import Fleet

REPOSITORY, CAPABILITY = "acme/widgets", "agent:python"
CHECK = "python3 -m unittest -q"
PATIENCE_SECS = 10.0

FLEET_TOML = """\
[forges.demo]
url = "{forge}"

[[repositories]]
forge = "demo"
name = "acme/widgets"
validation = ["{check}"]

{hosts}
[clis.coder]
argv = ["{python}", "{coder}", "--seconds", "{seconds}", "--hold", "{hold}"]
resume = ["{python}", "{coder}", "--seconds", "{seconds}", "--hold", "{hold}", "--resume", "{{session_id}}"]
parser = "codex-jsonl"
"""

LOCALHOST = """\
[[hosts]]
host_id = "localhost"
hostname = "localhost"
agents = [{ agent_type = "coder", max_concurrency = 2, capabilities = ["python"] }]
"""


@dataclass(frozen=True)
class Stage:
    """The demo's surroundings: the fleet, the processes, and the people on the forge."""

    manager: ProcessManager
    config: Config
    environ: dict[str, str]
    fleet: Fleet
    forge_url: str
    alice: ForgeUser
    reviewer: ForgeUser

    @property
    def hold(self) -> Path:
        """The demo's CLI works on while this file exists and the prompt contains its text."""
        return self.config.home / "hold"


@contextmanager
def stage(
    seconds: float = 0.5, forge: dict[str, Any] | None = None, hosts: str = LOCALHOST, **environ: str
) -> Iterator[Stage]:
    """The whole system, in a folder of its own that goes with it, with a small forge unless one is given (its `url`,
    and its `users` with their tokens). The demo's CLI thinks for so many seconds, on `hosts` as fleet.toml declares
    them, {work} being the folder where those of this machine work. Raises Wrong.
    """
    check_git()
    try:
        home = Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    except OSError as error:
        raise ConfigError(
            [f"There is no room for the demo ({error}): set TMPDIR to a folder that can be used."]
        ) from error
    home.chmod(0o755)
    try:
        with ProcessManager() as manager:
            forge = forge or _start_forge(manager, home)
            environ = _environment(home, forge, seconds, hosts) | environ
            with running(manager, environ, quiet=True) as config:
                fleet = wiring.fleet(environ, connections=2)
                try:
                    yield _furnished(manager, environ, fleet, forge)
                finally:
                    fleet.engine.dispose()
                    end_local_runs(config.home / "work")
    except ProcessFailed as broken:
        raise ConfigError([str(broken), *last_lines(broken.log)]) from broken
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _start_forge(manager: ProcessManager, home: Path) -> dict[str, Any]:
    state, log = home / "forge.json", home / "forge.log"
    home.chmod(0o755)
    argv = [
        sys.executable,
        "-m",
        "app.cli.demo.forge",
        "--root",
        str(home / "forge"),
        "--state-file",
        str(state),
    ]
    environ = os.environ | {"PYTHONPATH": str(TOP)}
    manager.add(ChildProcess("forge", argv, environ, serves=True, log=log, ready=state.exists))
    found: dict[str, Any] = json.loads(state.read_text())
    return found


def _environment(home: Path, forge: dict[str, Any], seconds: float, hosts: str) -> dict[str, str]:
    coder = Path(__file__).with_name("coder.py")
    hosts = hosts.replace("{work}", str(home / "home" / "work"))
    toml = FLEET_TOML.format(
        forge=forge["url"], check=CHECK, python=sys.executable, coder=coder, seconds=seconds, hosts=hosts,
        hold=home / "home" / "hold",
    )  # fmt: skip
    (home / "fleet.toml").write_text(toml)
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLEET_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return ours | {
        "FLEET_HOME": str(home / "home"),
        "FLEET_CONFIG": str(home / "fleet.toml"),
        "FLEET_FORGE_TOKEN": forge["users"]["fleet"],
        "FLEET_LOOK_SECS": "0.3",
        "FLEET_SCAN_SECS": "1",
        "FLEET_RECONCILE_SECS": "5",
        "FLEET_MOST_LOAD": "10000",  # it goes on a busy machine too
        "FLEET_REVIEW_QUIET_SECS": "0.5",
        "PORT": os.environ.get("PORT") or str(free_port()),
        "PYTHONPATH": str(TOP),
    }


def _furnished(manager: ProcessManager, environ: dict[str, str], fleet: Fleet, forge: dict[str, Any]) -> Stage:
    config = fleet.config
    people = {name: ForgeUser(forge["url"], token) for name, token in forge["users"].items()}
    secret = config.secret("FLEET_WEBHOOK_SECRET") or ""
    people["alice"].hook(REPOSITORY, f"{config.public_url}/api/v1/webhooks/forgejo", secret)
    return Stage(manager, config, environ, fleet, forge["url"], people["alice"], people["reviewer"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_local_runs(home: Path) -> None:
    """Cancel every run below `home` that has no result yet, and wait until each has one and its supervisor is gone: it
    may still be packing a mirror, which it would make anew where somebody took it away."""
    supervisor = next((home / "bin").glob("*.py"), None) if (home / "bin").is_dir() else None
    going = [run for run in home.glob("runs/*/*") if not (run / "result.json").exists()]
    if supervisor is None:
        return
    for run in going:
        request = {"home": str(home), "instance": run.parent.name, "run": run.name, "grace_secs": 1}
        argv = [sys.executable, "-I", "-S", str(supervisor), "cancel"]
        subprocess.run(
            argv, input=json.dumps(request).encode(), capture_output=True, check=False, timeout=PATIENCE_SECS
        )
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until and not all((run / "result.json").exists() for run in going):
        time.sleep(0.05)
    while time.monotonic() < until and any(_is_at_work(run) for run in home.glob("runs/*/*")):
        time.sleep(0.02)


def _is_at_work(run: Path) -> bool:
    """Whether the supervisor of a run lives, where /proc tells."""
    try:
        pid = json.loads((run / "state.json").read_text())["pid"]
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ValueError, LookupError, TypeError):
        return False

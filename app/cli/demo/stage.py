"""Runs the fleet beside a small forge, in a temporary folder: for the demo, the journeys and the benchmarks."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
class RunningForge:
    """A forge with sample data: its address, and the tokens of its users by their names."""

    url: str
    tokens: Mapping[str, str]


@dataclass(frozen=True)
class Stage:
    """The running fleet, its processes, the forge beside it, and the people there."""

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
    seconds: float = 0.5, forge: RunningForge | None = None, hosts: str = LOCALHOST, **environ: str
) -> Iterator[Stage]:
    """Run the fleet in a temporary folder, and remove both at the end.

    Starts a small forge unless `forge` names a running one. The demo's CLI works for `seconds`. `hosts` is the text of
    fleet.toml's hosts; in it, {work} is the work folder on this machine. Raises ConfigError when something does not
    start.
    """
    check_git()
    home = _temporary_folder()
    try:
        with ProcessManager() as manager:
            forge = forge or _start_forge(manager, home)
            environ = _environment(home, forge, seconds, hosts) | environ
            with running(manager, environ, quiet=True) as config:
                fleet = wiring.fleet(environ, connections=2)
                try:
                    yield _with_users(manager, environ, fleet, forge)
                finally:
                    fleet.engine.dispose()
                    end_local_runs(config.home / "work")
    except ProcessFailed as failed:
        raise ConfigError([str(failed), *last_lines(failed.log)]) from failed
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _temporary_folder() -> Path:
    """A new folder that other users may enter: Postgres does not run as root."""
    try:
        home = Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    except OSError as error:
        raise ConfigError([f"No temporary folder can be made ({error}): set TMPDIR to a writable folder."]) from error
    home.chmod(0o755)
    return home


def _start_forge(manager: ProcessManager, home: Path) -> RunningForge:
    state, log = home / "forge.json", home / "forge.log"
    argv = [sys.executable, "-m", "app.cli.demo.forge", "--root", str(home / "forge"), "--state-file", str(state)]
    environ = os.environ | {"PYTHONPATH": str(TOP)}
    manager.add(ChildProcess("forge", argv, environ, serves=True, log=log, ready=state.exists))
    found = json.loads(state.read_text())
    return RunningForge(found["url"], found["users"])


def _environment(home: Path, forge: RunningForge, seconds: float, hosts: str) -> dict[str, str]:
    """Write fleet.toml; the environment of the fleet's processes, without settings of a fleet that runs here."""
    coder = Path(__file__).with_name("coder.py")
    hosts = hosts.replace("{work}", str(home / "home" / "work"))
    toml = FLEET_TOML.format(
        forge=forge.url, check=CHECK, python=sys.executable, coder=coder, seconds=seconds, hosts=hosts,
        hold=home / "home" / "hold",
    )  # fmt: skip
    (home / "fleet.toml").write_text(toml)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLEET_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return kept | {
        "FLEET_HOME": str(home / "home"),
        "FLEET_CONFIG": str(home / "fleet.toml"),
        "FLEET_FORGE_TOKEN": forge.tokens["fleet"],
        "FLEET_LOOK_SECS": "0.3",
        "FLEET_SCAN_SECS": "1",
        "FLEET_RECONCILE_SECS": "5",
        "FLEET_MOST_LOAD": "10000",  # busy machines take work too
        "FLEET_REVIEW_QUIET_SECS": "0.5",
        "PORT": os.environ.get("PORT") or str(free_port()),
        "PYTHONPATH": str(TOP),
    }


def _with_users(manager: ProcessManager, environ: dict[str, str], fleet: Fleet, forge: RunningForge) -> Stage:
    """The stage, with alice's webhook to the fleet in place."""
    config = fleet.config
    alice, reviewer = (ForgeUser(forge.url, forge.tokens[name]) for name in ("alice", "reviewer"))
    secret = config.secret("FLEET_WEBHOOK_SECRET") or ""
    alice.add_webhook(REPOSITORY, f"{config.public_url}/api/v1/webhooks/forgejo", secret)
    return Stage(manager, config, environ, fleet, forge.url, alice, reviewer)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_local_runs(home: Path) -> None:
    """Cancel the open runs below `home`, a work folder on this machine, and wait for their supervisors to exit.

    It asks no database. A supervisor that still packs a mirror would make the folder again after its removal.
    """
    supervisor = next((home / "bin").glob("*.py"), None) if (home / "bin").is_dir() else None
    if supervisor is None:
        return
    open_runs = [run for run in home.glob("runs/*/*") if not (run / "result.json").exists()]
    for run in open_runs:
        _cancel(supervisor, home, run)
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until and not all((run / "result.json").exists() for run in open_runs):
        time.sleep(0.05)
    while time.monotonic() < until and any(_has_live_supervisor(run) for run in home.glob("runs/*/*")):
        time.sleep(0.02)


def _cancel(supervisor: Path, home: Path, run: Path) -> None:
    request = {"home": str(home), "instance": run.parent.name, "run": run.name, "grace_secs": 1}
    argv = [sys.executable, "-I", "-S", str(supervisor), "cancel"]
    subprocess.run(argv, input=json.dumps(request).encode(), capture_output=True, check=False, timeout=PATIENCE_SECS)


def _has_live_supervisor(run: Path) -> bool:
    """False too where /proc does not tell."""
    try:
        pid = json.loads((run / "state.json").read_text())["pid"]
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ValueError, LookupError, TypeError):
        return False

"""`fleet up`: what it refuses, in one sentence and with nothing half-started; and how it stops."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from tests import servers
from tests.patience import patient, wait_until

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.journey


def fleet(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words], capture_output=True, text=True, timeout=patient(60), cwd=TOP,
        env=_environment(environ), check=False,
    )  # fmt: skip


def _environment(environ: dict[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(TOP)} | environ


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def home(folder: Path) -> Path:
    return folder / "home"


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert all(line.startswith("fleet: ") for line in done.stderr.strip().splitlines()), done.stderr


def test_all_that_is_wrong_with_the_settings_is_said_at_once(home: Path, folder: Path) -> None:
    wrong = {"PORT": "http", "FLEET_SCAN_SECS": "-3", "DATABASE_URL": "mysql://x/y"}
    (folder / "fleet.toml").write_text('colour = "red"\n')
    done = fleet("up", FLEET_HOME=str(home), FLEET_CONFIG=str(folder / "fleet.toml"), **wrong)
    assert_refused(done, *wrong, "colour")
    assert not home.exists()


def test_a_wrong_fleet_toml_is_refused_before_anything_starts(home: Path, folder: Path) -> None:
    toml = folder / "fleet.toml"
    toml.write_text('[[hosts]]\nhost_id = "a"\nhostname = "localhost"\nagents = []\ncolour = "red"\n')
    done = fleet("up", FLEET_HOME=str(home), PORT=str(free_port()), FLEET_CONFIG=str(toml))
    assert_refused(done, "hosts.0.colour", "hosts.0.agents")
    assert not (home / "postgres").exists()


def test_a_busy_port_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_refused(fleet("up", FLEET_HOME=str(home), PORT=port), port, "PORT")


def test_a_home_that_cannot_be_made_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    assert_refused(fleet("up", FLEET_HOME=str(folder / "file" / "home"), PORT=str(free_port())), "FLEET_HOME")


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_machine_without_git_is_told_so(home: Path, folder: Path, command: str) -> None:
    (folder / "bin").mkdir()
    done = fleet(command, FLEET_HOME=str(home), PORT=str(free_port()), PATH=str(folder / "bin"))
    assert_refused(done, "git is missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_told_in_a_sentence(home: Path) -> None:
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(home)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        assert_refused(fleet("up", FLEET_HOME=str(home), PORT=str(free_port())), "disk")
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_a_second_fleet_in_the_same_home_is_refused_and_the_first_stops_cleanly(home: Path) -> None:
    port = free_port()
    first = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up"], stderr=subprocess.PIPE, text=True, cwd=TOP,
        env=_environment({"FLEET_HOME": str(home), "PORT": str(port)}),
    )  # fmt: skip
    try:
        _until_ready(port, first)
        assert_refused(fleet("up", FLEET_HOME=str(home), PORT=str(free_port())), "Another fleet")
        token = (home / "secrets" / "operator-token").read_text().strip()
        assert (home / "secrets" / "operator-token").stat().st_mode & 0o777 == 0o600
        shown = fleet("config", FLEET_HOME=str(home))
        assert token not in shown.stdout
        assert fleet("task", "list", "--json", FLEET_HOME=str(home)).stdout.strip() == "[]"
        assert fleet("replay", "--check", FLEET_HOME=str(home)).returncode == 0
    finally:
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=patient(60))[1]
    assert first.returncode == 0, said
    assert token not in said


def test_killing_fleet_up_itself_leaves_no_process(home: Path) -> None:
    port = free_port()
    up = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up"], stderr=subprocess.DEVNULL, cwd=TOP,
        env=_environment({"FLEET_HOME": str(home), "PORT": str(port)}),
    )  # fmt: skip
    _until_ready(port, up)
    family = psutil.Process(up.pid).children(recursive=True)
    up.kill()
    up.wait()
    _, alive = psutil.wait_procs(family, timeout=patient(20))
    for process in alive:
        process.kill()
    assert alive == []


@pytest.fixture
def servers_of_ones_own() -> Iterator[dict[str, str]]:
    """A database and a broker that the fleet did not start."""
    name = servers.fresh_name()
    servers.create(name, "template1")
    yield {"DATABASE_URL": servers.url(name).replace("+psycopg", ""), "REDIS_URL": servers.valkey_url(7)}
    servers.drop(name)


def test_servers_of_ones_own_that_do_not_answer_are_named(home: Path) -> None:
    nobody = {"DATABASE_URL": "postgresql://fleet:hush-hush@127.0.0.1:9/fleet", "REDIS_URL": "redis://127.0.0.1:9/0"}
    done = fleet("up", FLEET_HOME=str(home), PORT=str(free_port()), **nobody)
    assert_refused(done, "DATABASE_URL", "REDIS_URL")
    assert "hush-hush" not in done.stderr


def test_with_servers_of_ones_own_named_in_files_none_is_embedded(
    home: Path, folder: Path, servers_of_ones_own: dict[str, str]
) -> None:
    port, named = free_port(), {}
    for name, address in servers_of_ones_own.items():
        (folder / name).write_text(f"{address}\n")
        named[f"{name}_FILE"] = str(folder / name)
    with started([sys.executable, "-m", "app.cli", "up"], home, port, **named):
        assert not (home / "postgres").exists()
        assert not (home / "run" / "valkey.sock").exists()


def test_honcho_runs_the_same_procfile(home: Path, servers_of_ones_own: dict[str, str]) -> None:
    assert fleet("migrate", FLEET_HOME=str(home), **servers_of_ones_own).returncode == 0
    honcho = [sys.executable, "-m", "honcho", "start", "web", "worker", "beat"]
    with started(honcho, home, free_port(), **servers_of_ones_own):
        pass


@contextmanager
def started(argv: list[str], home: Path, port: int, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that serves on `port`, ended by Ctrl-C."""
    process = subprocess.Popen(
        argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=TOP, start_new_session=True,
        env=_environment({"FLEET_HOME": str(home), "PORT": str(port)} | environ),
    )  # fmt: skip
    try:
        _until_ready(port, process)
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(patient(60))
        assert psutil.wait_procs(family, timeout=patient(20))[1] == []


def _until_ready(port: int, process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    def assert_alive() -> None:
        assert process.poll() is None, "fleet up ended"

    wait_until(lambda: _is_ready(port), "fleet up is ready", 60, meanwhile=assert_alive)


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=patient(2)) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

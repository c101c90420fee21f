"""Runs a real sshd on loopback addresses: hosts for tests and benches, with keys of its own.

It changes nothing on the machine.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.cli.local.process_manager import ChildProcess
from app.domain.host import Address, Machine
from tests.find_sshd import Program, environment
from tests.patience import patient, wait_until

TOP = Path(__file__).parents[1]
MOST_ADDRESSES = 16  # of one sshd
CONFIG = """\
Port {port}
{listen}
HostKey {folder}/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
AuthorizedKeysFile {folder}/authorized_keys
Subsystem sftp internal-sftp
UseDNS no
PrintMotd no
PrintLastLog no
SetEnv HOME={home}
{settings}
"""
# As root sshd wants a user and a folder of its own; in a mount namespace it has both without the machine having them.
AS_ROOT = """\
set -e
{{ grep -v '^sshd:' /etc/passwd; echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin'; }} > {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs -o size=64k,mode=755 tmpfs /run
mkdir /run/sshd
exec "$@"
"""


@dataclass
class Sshd:
    """An sshd that listens on several addresses (or as many as that takes), each a host of its own with its own work folder. `settings` are
    further lines of sshd_config."""

    folder: Path
    program: Program
    count: int = 1
    settings: str = ""
    first: int = 2
    children: list[ChildProcess] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("home", "work"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.host_key = self.make_key("host_key")
        (self.folder / "authorized_keys").write_text(self.make_key("client_key") + "\n")
        self.port = free_port(self.addresses[0])

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.{self.first + at}" for at in range(self.count)]

    @property
    def key_path(self) -> str:
        return str(self.folder / "client_key")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def work(self, at: int = 0) -> Path:
        """The work folder of the host number `at`."""
        return self.folder / "work" / str(at)

    def make_key(self, name: str) -> str:
        """A new key in the file `name`; its public half as a line."""
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        path = self.folder / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(text)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.keys[name] = public.decode()
        return public.decode()

    def change_host_key(self) -> None:
        """The machine at this address has another key from now on."""
        self.stop()
        self.host_key = self.make_key("host_key")
        self.start()

    def declared(self, at: int = 0, **given: Any) -> dict[str, Any]:
        """The host number `at` as fleet.toml would declare it."""
        agents = [{"agent_type": "coder", "max_concurrency": 2, "capabilities": ["python"]}]
        return {
            "host_id": f"host-{at + 1}", "hostname": self.addresses[at], "ssh_user": user_name(), "ssh_port": self.port,
            "ssh_key_path": self.key_path, "host_key": self.host_key, "proxy_jump": None, "labels": [],
            "work_dir": str(self.work(at)), "agents": agents, **given,
        }  # fmt: skip

    def machine(self, at: int = 0, **given: Any) -> Machine:
        """The host number `at` as the store would give it. `given` changes its declaration or its columns."""
        declared = self.declared(at, **given)
        keys = tuple(declared["host_key"].splitlines())
        address = Address(
            declared["hostname"], declared["ssh_port"], declared["ssh_user"], declared["ssh_key_path"], keys
        )
        columns = {name: given[name] for name in ("fitness", "why", "since") if name in given}
        return Machine(declared["host_id"], address, work_dir=declared["work_dir"], **columns)

    def toml(self, at: int = 0, **given: Any) -> str:
        """The same as a piece of fleet.toml."""
        one = self.declared(at, **given)
        agents = ", ".join(
            "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in agent.items()) + " }"
            for agent in one.pop("agents")
        )
        plain = [f"{name} = {json.dumps(value)}" for name, value in one.items() if value is not None]
        return "\n".join(["[[hosts]]", *plain, f"agents = [{agents}]", ""])

    def start(self) -> None:
        for at in range(0, self.count, MOST_ADDRESSES):
            some = self.addresses[at : at + MOST_ADDRESSES]
            argv = self._sshd(some) if self.program.path else self._stand_in(some)
            self.children.append(ChildProcess("sshd", argv, environment(self.program), log=self.folder / "sshd.log"))
            self.children[-1].start()
            wait_until(partial(self.answers, some[-1]), "sshd answers", meanwhile=self._assert_alive, details=self.log)

    def stop(self) -> None:
        """End it, its sessions and what runs in them; what was detached from them goes on."""
        left = self.processes()
        while self.children:
            self.children.pop().stop()
        for process in left:
            with suppress(psutil.NoSuchProcess):  # it ended by itself
                process.kill()
        psutil.wait_procs(left, timeout=0.3)

    def processes(self) -> list[psutil.Process]:
        """Its sessions and what runs in them."""
        pids = [child.process.pid for child in self.children if child.process and not child.is_dead()]
        return [one for pid in pids for one in psutil.Process(pid).children(recursive=True)]

    def cut(self) -> None:
        """Every connection ends; new ones are taken."""
        if not self.program.path:
            self.stop()
            return self.start()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()

    def answers(self, address: str) -> bool:
        try:
            with socket.create_connection((address, self.port), timeout=patient(1)) as sock:
                return sock.recv(4) == b"SSH-"
        except OSError:
            return False

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text(errors="replace")

    def _assert_alive(self) -> None:
        assert not self.children[-1].is_dead(), self.log()

    def _sshd(self, addresses: list[str]) -> list[str]:
        listen = "\n".join(f"ListenAddress {address}" for address in addresses)
        config = self.folder / f"sshd_config.{addresses[0]}"
        config.write_text(
            CONFIG.format(port=self.port, listen=listen, folder=self.folder, home=self.home, settings=self.settings)
        )
        argv = [self.program.path or "", "-D", "-e", "-f", str(config)]
        if os.geteuid():
            return argv
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
            return argv
        script = AS_ROOT.format(folder=self.folder)
        return ["unshare", "--mount", "sh", "-c", script, "sh", *argv]

    def _stand_in(self, addresses: list[str]) -> list[str]:
        where = ",".join(addresses)
        return [sys.executable, str(TOP / "tests" / "fakes" / "sshd.py"), where, str(self.port), str(self.folder)]


@contextmanager
def running(folder: Path, program: Program, count: int = 1, settings: str = "", first: int = 2) -> Iterator[Sshd]:
    """An sshd with `count` addresses from 127.0.0.`first` on, until the block ends."""
    sshd = Sshd(folder, program, count, settings, first)
    try:
        sshd.start()
        yield sshd
    finally:
        sshd.stop()


def user_name() -> str:
    return str(psutil.Process().username())


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])

"""Diagnoses a host step by step: connect, host key, login, Python, supervisor, git, disk, clock, CLIs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from app.domain.host import Address, Machine, Probe
from workers import protocol
from workers.errors import Unreachable
from workers.hosts.client import HostClient
from workers.hosts.probe import read_answer, version_commands
from workers.protocol import MOST_BYTES
from workers.ssh import bootstrap
from workers.ssh.client import SshClient
from workers.ssh.connection import Timeouts, read_host_key
from workers.ssh.deadlines import Deadlines
from workers.ssh.host_keys import fingerprint
from workers.supervisor_messages import Body, SupervisorAnswer

CONNECT, HOST_KEY, PROBE = "connect", "host key", "probe"  # names of steps
APART = (
    "no CLI there can inspect other processes, nor use sudo (`apart = false` allows it); "
    "hooks and checks can do both (`checks_apart = true` prevents it)"
)
NOT_APART = (
    "its CLIs can inspect each other's processes, where keys are: Linux 6.12 and a user that is not root prevent that"
)


@dataclass(frozen=True)
class HostKey:
    """The key that a host shows, as a line of known_hosts without the host."""

    line: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.line)


@dataclass(frozen=True)
class Step:
    """One step of a diagnosis: whether it is fine, and a sentence for people."""

    name: str
    is_fine: bool
    sentence: str
    key: HostKey | None = None  # of the step HOST_KEY
    probe: Probe | None = None  # of the step PROBE


@dataclass(frozen=True)
class Wanted:
    """What a host must have: the templates of its CLIs by name, and free bytes on disk."""

    clis: Mapping[str, Any]
    least_disk: int


Request = Callable[[str, Body], SupervisorAnswer]


def diagnose(client: HostClient, machine: Machine, wanted: Wanted) -> Iterator[Step]:
    """Yield each step as it is done. The last one is PROBE, or the one that failed."""
    try:
        if machine.is_local:
            yield from _inspect(lambda verb, body: client.request(machine, verb, body), wanted)
        else:
            yield from _connect(client, machine, wanted)
    except Unreachable as why:
        yield Step("stopped", False, str(why))


def host_key(address: Address) -> HostKey:
    """The key that a host shows. Raises Unreachable."""
    with closing(Deadlines()) as deadlines:
        return HostKey(read_host_key(address, Timeouts(), deadlines))


def _connect(client: HostClient, machine: Machine, wanted: Wanted) -> Iterator[Step]:
    """On a connection of its own: the pool backs off after failures."""
    address = machine.address
    shown = HostKey(read_host_key(address, Timeouts(), client.deadlines))
    yield Step(CONNECT, True, f"{address.hostname} answers on port {address.port}")
    key = _check_key(address, shown)
    yield key
    if not key.is_fine:
        return
    began = time.monotonic()
    with closing(SshClient(address, client.deadlines)) as ssh:
        took = (time.monotonic() - began) * 1000
        yield Step("login", True, f"it accepts the login of {address.user or 'our user'}, in {took:.0f} ms")
        environment = bootstrap.find_environment(ssh)
        yield Step("python", True, f"the supervisor runs on {environment.python}")
        supervisor = bootstrap.upload_supervisor(ssh, environment, client.home(machine))
        yield Step("supervisor", True, f"it is in {supervisor.rpartition('/')[0]}, whole")

        def request(verb: str, body: Body) -> SupervisorAnswer:
            whole = {"home": client.home(machine), "path": environment.path, **body}
            stdin = json.dumps(whole).encode()
            stdout, _ = ssh.run(bootstrap.supervisor_command(environment, supervisor, verb), stdin, MOST_BYTES)
            return protocol.parse(stdout) or {"error": "it gave no answer"}

        yield from _inspect(request, wanted)


def _check_key(address: Address, shown: HostKey) -> Step:
    if not any(map(fingerprint, address.host_keys)):
        words = f"no key is pinned; it shows {shown.fingerprint}: compare that on the machine, then pin `{shown.line}`"
        return Step(HOST_KEY, False, words, shown)
    pinned = [fingerprint(line) for line in address.host_keys]
    if shown.fingerprint not in pinned:
        words = f"it shows {shown.fingerprint}, and {', '.join(pinned)} is pinned: find out why before you change that"
        return Step(HOST_KEY, False, words, shown)
    return Step(HOST_KEY, True, f"it shows the pinned {shown.fingerprint}", shown)


def _inspect(request: Request, wanted: Wanted) -> Iterator[Step]:
    commands = version_commands(wanted.clis)
    sent, began = time.time(), time.monotonic()
    answer = request("probe", {"instance": "diagnose", "clis": commands})
    if "error" in answer:
        raise Unreachable(str(answer["error"]))
    seen = read_answer(answer, sent, time.monotonic() - began)
    yield from judge_probe(seen, wanted)
    yield Step(PROBE, True, f"it answers in {(seen.round_trip or 0) * 1000:.0f} ms", probe=seen)


def judge_probe(seen: Probe, wanted: Wanted) -> Iterator[Step]:
    """The steps that a probe answers: git, git-lfs, isolation, disk, clock, and each CLI."""
    free = seen.disk_free or 0
    yield Step("git", bool(seen.git), seen.git or "git is missing: install it")
    yield Step("git-lfs", True, "git-lfs is installed" if seen.lfs else "git-lfs is missing: only some need it")
    yield Step("apart", True, APART if seen.apart else NOT_APART)
    yield Step("disk", free >= wanted.least_disk, f"{free >> 20} MB are free")
    yield Step("clock", True, f"it is {seen.clock_offset or 0:+.2f} s from ours")
    known = version_commands(wanted.clis)
    for name in wanted.clis:
        yield _check_cli(name, name in known, seen)


def _check_cli(name: str, is_known: bool, seen: Probe) -> Step:
    if name in seen.missing:
        return Step(f"cli {name}", False, f"{name} is not on the PATH of a login there: install it")
    if not is_known:
        return Step(f"cli {name}", False, f"{name} is not a known CLI: declare [clis.{name}] in fleet.toml")
    version = seen.clis.get(name)
    return Step(f"cli {name}", True, version or f"{name} is installed, and does not say its version")

"""Walks to a host and says what is there: `python -m workers.hosts.diagnose walk|key < request`, a line of JSON a step.

It is a program of its own, since the commands of the fleet do not touch other machines.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.domain.host import figures
from workers import protocol
from workers.errors import Unreachable
from workers.hosts import client, probe
from workers.ssh import bootstrap
from workers.ssh.client import Line
from workers.ssh.connection import Address, Limits, host_key
from workers.ssh.host_keys import fingerprint
from workers.ssh.pool import MOST, address_of

Json = dict[str, Any]
APART = (
    "no CLI there can look into other processes, nor use sudo (`apart = false` lets it); "
    "hooks and checks can do both (`checks_apart = true` keeps them from it)"
)
NOT_APART = (
    "its CLIs can look into each other's processes, where keys are: Linux 6.12 and a user that is not root prevent that"
)


def walk(request: Json) -> Iterator[Json]:
    """Every step until one that fails: each with its name, whether it is fine, and a sentence."""
    host, address = request["host"], address_of(request["host"])
    if host["hostname"] == "localhost":
        yield from _what_is_there(lambda verb, asked: client.ask(host, verb, asked), request)
        return
    shown = host_key(address, Limits())
    yield _step("connect", True, f"{address.host} answers on port {address.port}")
    yield _known(address, shown)
    began = time.monotonic()
    line = Line(address)
    try:
        yield _step("login", True, f"it lets {address.user or 'us'} in, in {(time.monotonic() - began) * 1000:.0f} ms")
        found = bootstrap.survey(line)
        yield _step("python", True, f"{found.python} is what the supervisor runs on")
        put = bootstrap.push(line, found, request["home"])
        yield _step("supervisor", True, f"it is in {put.rpartition('/')[0]}, whole")

        def ask(verb: str, asked: Json) -> Json:
            said, _ = line.run(
                bootstrap.command(found, put, verb), json.dumps({**asked, "path": found.path}).encode(), MOST
            )
            return protocol.read(said, MOST) or {"error": "it gave no answer"}

        yield from _what_is_there(ask, request)
    finally:
        line.close()


def key(request: Json) -> Iterator[Json]:
    """The host key that is shown, and its fingerprint."""
    shown = host_key(address_of(request["host"]), Limits())
    yield _step("key", True, "it shows this key", host_key=shown, fingerprint=fingerprint(shown))


def _known(address: Address, shown: str) -> Json:
    if not any(map(fingerprint, address.keys)):
        words = f"no key is pinned; it shows {fingerprint(shown)}: compare that on the machine, then pin `{shown}`"
        return _step("host key", False, words, host_key=shown, fingerprint=fingerprint(shown))
    pinned = [fingerprint(line) for line in address.keys]
    if fingerprint(shown) not in pinned:
        words = f"it shows {fingerprint(shown)}, and {', '.join(pinned)} is pinned: find out why before you change that"
        return _step("host key", False, words, host_key=shown, fingerprint=fingerprint(shown))
    return _step("host key", True, f"it shows the pinned {fingerprint(shown)}", fingerprint=fingerprint(shown))


def _what_is_there(ask: Callable[[str, Json], Json], request: Json) -> Iterator[Json]:
    asked = {"home": request["home"], "instance": "walk", "clis": probe.versions(request["clis"])}
    sent, began = time.time(), time.monotonic()
    answer = ask("probe", asked)
    if "error" in answer:
        raise Unreachable(str(answer["error"]))
    took = time.monotonic() - began
    seen = figures(answer, float(answer.get("now") or sent) - (sent + took / 2), took)
    yield _step("git", bool(seen["git"]), seen["git"] or "git is missing: install it")
    yield _step("git-lfs", True, "git-lfs is there" if seen["lfs"] else "git-lfs is not there: only some need it")
    yield _step("apart", True, APART if seen["apart"] else NOT_APART)
    yield _step(
        "disk", (seen["disk_free"] or 0) >= request["least_disk"], f"{(seen['disk_free'] or 0) >> 20} MB are free"
    )
    yield _step("clock", True, f"it is {seen['clock_offset']:+.2f} s from ours")
    for name in request["clis"]:
        version = seen["clis"].get(name)
        if name in seen["missing"]:
            yield _step(f"cli {name}", False, f"{name} is not on the PATH of a login there: install it")
        elif name not in asked["clis"]:
            yield _step(f"cli {name}", False, f"nobody knows how to call {name}: declare [clis.{name}] in fleet.toml")
        else:
            yield _step(f"cli {name}", True, version or f"{name} is there, and does not say its version")
    yield _step("probe", True, f"it answers in {took * 1000:.0f} ms", figures=seen)


def _step(name: str, fine: bool, sentence: str, **more: Any) -> Json:
    return {"step": name, "fine": fine, "sentence": sentence, **more}


def main() -> None:
    """0 if every step was fine."""
    request, fine = json.load(sys.stdin), True
    try:
        for step in {"walk": walk, "key": key}[sys.argv[1]](request):
            print(json.dumps(step), flush=True)
            fine = fine and step["fine"]
            if step["step"] == "host key" and not fine:
                break
    except Unreachable as why:
        print(json.dumps(_step("stopped", False, str(why))), flush=True)
        fine = False
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()

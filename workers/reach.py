"""Calls the supervisor on a host: one verb, JSON in, JSON out. `localhost` is a local process, all others are SSH."""

import hashlib
import json
import os
import py_compile
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from app.domain.place import Fitness
from app.ports import Fleet
from app.store.tables import Row
from workers import answers
from workers.away import LeftAlone, Unable, Unreachable

__all__ = ["Unable", "Unreachable", "ask", "home", "keep_only", "tell"]
SUPERVISOR = Path(__file__).with_name("supervisor.py")
SECONDS, MOST = 60, 64 << 20  # of an answer: time and bytes
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SHELL",
)  # no secret of ours goes along


Listener = Callable[[Row, Unreachable], None]
_listeners: list[Listener] = []


def ask(host: Row, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The supervisor's answer. Raises Unreachable, or Refused where the host says that it cannot be done."""
    if host.get("fitness") == Fitness.QUARANTINED:
        raise LeftAlone(f"{host['host_id']} is in quarantine, and is not asked: {host['why']}")
    if host["hostname"] == "localhost":
        return _ask_locally(host, verb, request)
    try:
        answer = _ask_over_ssh(host, verb, request)
    except Unreachable as why:
        _hear(host, why)
        raise type(why)(f"{host['host_id']} did not answer `{verb}`: {why}") from why
    return _unless_unable(host, verb, answer)


def tell(listener: Listener) -> None:
    """Have `listener` hear of each host that was asked over SSH and did not answer, or is not to be trusted."""
    _listeners[:] = [listener]


def keep_only(host_ids: Set[str]) -> None:
    """Close the lines to all other hosts, where there are any."""
    if "workers.lines" in sys.modules:
        sys.modules["workers.lines"].keep_only(host_ids)


def without_line(host_ids: Iterable[str]) -> list[str]:
    """Those of these hosts, reached over SSH, to which this process has no open line."""
    wanted = list(host_ids)
    if not wanted:
        return []
    from workers import lines  # noqa: PLC0415 - as below

    return [host_id for host_id in wanted if not lines.is_open_to(host_id)]


def home(fleet: Fleet, host: Row) -> str:
    """The folder on the host that is ours."""
    return host["work_dir"] or (
        str(fleet.config.home / "work") if host["hostname"] == "localhost" else "~/.agent-fleet"
    )


def _ask_over_ssh(host: Row, verb: str, request: Mapping[str, Any]) -> answers.Json:
    from workers import lines  # noqa: PLC0415 - a fleet of localhost alone is spared 20 MB of paramiko

    return lines.to(host).ask(verb, request)


def _hear(host: Row, why: Unreachable) -> None:
    if not isinstance(why, LeftAlone):
        for listener in _listeners:
            listener(host, why)


def _ask_locally(host: Row, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    argv = [sys.executable, "-I", "-S", str(_copied(request["home"])), verb]
    try:
        done = subprocess.run(
            argv,
            input=json.dumps(request).encode(),
            env=environment,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{host['host_id']} did not answer `{verb}`: {error}") from error
    answer = answers.read(done.stdout, MOST)
    if answer is None:
        said = done.stderr[-500:].decode(errors="replace")
        raise Unreachable(f"{host['host_id']} gave no answer to `{verb}`: {said}")
    return _unless_unable(host, verb, answer)


def _unless_unable(host: Row, verb: str, answer: answers.Json) -> answers.Json:
    if "error" in answer:
        raise Unable(f"{host['host_id']} could not `{verb}`: {answer['error']}")
    return answer


@cache
def _copied(home: str) -> Path:
    """The supervisor under its content's hash, so that one that runs is never changed under its feet; compiled, since
    compiling it would be a sixth of every start."""
    code = SUPERVISOR.read_bytes()
    path = Path(home) / "bin" / f"{hashlib.sha256(code).hexdigest()}.py"
    compiled = path.with_suffix(f".{sys.implementation.cache_tag}.pyc")
    if not compiled.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        new.write_bytes(code)
        new.replace(path)
        py_compile.compile(str(path), str(compiled), doraise=True)
    return compiled

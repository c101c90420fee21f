"""Calls the supervisor on a host: one verb, JSON in, JSON out. `localhost` is a local process, all others are SSH."""

import sys
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from app.domain.host import Fitness
from app.ports import Fleet
from app.store.tables import Row
from workers.errors import LeftAlone, Unable, Unreachable
from workers.hosts import local
from workers.protocol import Json

__all__ = ["Unable", "Unreachable", "ask", "home", "keep_only", "tell"]
Listener = Callable[[Row, Unreachable], None]
_listeners: list[Listener] = []


def ask(host: Row, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The supervisor's answer. Raises Unreachable, or Refused where the host says that it cannot be done."""
    if host.get("fitness") == Fitness.QUARANTINED:
        raise LeftAlone(f"{host['host_id']} is in quarantine, and is not asked: {host['why']}")
    is_here = host["hostname"] == "localhost"
    try:
        answer = local.ask(verb, request) if is_here else _ask_over_ssh(host, verb, request)
    except Unreachable as why:
        if not is_here:
            _hear(host, why)
        raise type(why)(f"{host['host_id']} did not answer `{verb}`: {why}") from why
    return _unless_unable(host, verb, answer)


def tell(listener: Listener) -> None:
    """Have `listener` hear of each host that was asked over SSH and did not answer, or is not to be trusted."""
    _listeners[:] = [listener]


def keep_only(host_ids: Set[str]) -> None:
    """Close the lines to all other hosts, where there are any."""
    if "workers.ssh.pool" in sys.modules:
        sys.modules["workers.ssh.pool"].keep_only(host_ids)


def without_line(host_ids: Iterable[str]) -> list[str]:
    """Those of these hosts, reached over SSH, to which this process has no open line."""
    wanted = list(host_ids)
    if not wanted:
        return []
    from workers.ssh import pool  # noqa: PLC0415 - as below

    return [host_id for host_id in wanted if not pool.is_open_to(host_id)]


def home(fleet: Fleet, host: Row) -> str:
    """The folder on the host that is ours."""
    return host["work_dir"] or (
        str(fleet.config.home / "work") if host["hostname"] == "localhost" else "~/.agent-fleet"
    )


def _ask_over_ssh(host: Row, verb: str, request: Mapping[str, Any]) -> Json:
    from workers.ssh import pool  # noqa: PLC0415 - a fleet of localhost alone is spared 20 MB of paramiko

    return pool.to(host).ask(verb, request)


def _hear(host: Row, why: Unreachable) -> None:
    if not isinstance(why, LeftAlone):
        for listener in _listeners:
            listener(host, why)


def _unless_unable(host: Row, verb: str, answer: Json) -> Json:
    if "error" in answer:
        raise Unable(f"{host['host_id']} could not `{verb}`: {answer['error']}")
    return answer

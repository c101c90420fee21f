"""Looks at hosts, each in a thread of its own: one that does not answer holds up no other."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import Any

import structlog

from app.clis import catalog
from app.domain.errors import Refused
from app.domain.host import Figures, Fitness, figures
from app.ports import Fleet
from app.services.dispatch import host_health
from app.store import hosts
from app.store.tables import Row
from workers.errors import Distrusted, Unreachable
from workers.hosts import client
from workers.runs import start_request

AT_ONCE = 16
CALLED_AT_ONCE = 16  # hosts to which this process makes a line at a time
ROUND_SECS = 3.0  # how long a round waits for its looks; those that take longer go on without it
log = structlog.get_logger()


def look(fleet: Fleet) -> int:
    """Look at every host that is due; returns how many of those that answered in time take work now that did not."""
    looks = [_pool().submit(_one, fleet, host) for host in host_health.due(fleet)]
    done, _ = wait(looks, timeout=ROUND_SECS)
    return sum(look.result() for look in done)


def call(fleet: Fleet) -> None:
    """Have lines to the hosts that take work, before the first start goes there: to connect takes longer than all else
    of it; and none to those where nobody goes any more. For each process to do on its own."""
    with fleet.engine.begin() as conn:
        known = hosts.all_hosts(conn)
        client.keep_only({host.host_id for host in known if host.fitness is not Fitness.QUARANTINED})
        cold = client.without_line(host.host_id for host in known if host.takes_work and not host.is_local)
        wanted = [host_id for host_id in cold if host_id not in _called][: CALLED_AT_ONCE - len(_called)]
        strangers = hosts.hosts_named(conn, wanted) if wanted else {}
    for host_id, host in strangers.items():
        _called.add(host_id)
        _calls().submit(_call, fleet, host)


def heard(fleet: Fleet, host: Row, why: Unreachable) -> None:
    """Whoever asked a host and had no answer has looked at it."""
    tell = host_health.distrusted if isinstance(why, Distrusted) else host_health.away
    tell(fleet, host["host_id"], str(why))


def ask(fleet: Fleet, host: Row, clis: Mapping[str, Any]) -> Figures:
    """What a host is and has now. Raises Unreachable."""
    request = start_request.about(fleet, host) | {"clis": versions(clis)}
    asked, began = time.time(), time.monotonic()
    answer = client.ask(host, "probe", request)
    took = time.monotonic() - began
    return figures(answer, float(answer.get("now") or asked) - (asked + took / 2), took)


def versions(clis: Mapping[str, Any]) -> dict[str, list[str]]:
    """How each CLI is asked for its version; one that nobody knows is not asked."""
    found: dict[str, list[str]] = {}
    for name, declared in clis.items():
        try:
            template = catalog.template_of(name, declared)
        except Refused:
            continue
        found[name] = template.version_command
    return found


def _one(fleet: Fleet, host: Row) -> bool:
    """Look at one host and write down what it showed; what breaks here is logged, and looked at again."""
    try:
        with fleet.engine.begin() as conn:
            clis = hosts.clis_on(conn, host["host_id"])
        takes_work_now = host_health.seen(fleet, host["host_id"], ask(fleet, host, clis))
        if takes_work_now:
            fleet.nudge.soon()
        return takes_work_now
    except Unreachable as why:
        heard(fleet, host, why)
    except Exception:
        log.exception("a look at a host broke", host=host["host_id"])
    return False


def _call(fleet: Fleet, host: Row) -> None:
    try:
        with suppress(Unreachable):
            client.ask(host, "poll", start_request.about(fleet, host) | {"runs": []})
    finally:
        _called.discard(host["host_id"])


_called: set[str] = set()  # hosts to which a line is being made


@cache
def _calls() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALLED_AT_ONCE, thread_name_prefix="call")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe")

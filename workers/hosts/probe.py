"""Probes hosts: versions, disk and load decide whether a host is fit for work, and why it is not.

Every scan probes the hosts that are due, each in its own thread. Two workers at once: one of them probes each host.
A host that does not answer becomes unfit; one that is untrusted is quarantined (app/services/dispatch/host_health.py).
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import structlog

from app.clis import catalog
from app.domain.errors import Refused
from app.domain.host import Fitness, Machine, Probe
from app.ports import Fleet
from app.services.dispatch import host_health
from app.store import hosts
from workers.errors import Unreachable, Untrusted
from workers.hosts.client import HostClient

PROBES = 16  # at once
CONNECTIONS = 16  # opened at once
WAIT_SECS = 3.0  # how long a scan waits for its probes; slower ones go on without it
CONNECT_EVERY_SECS = 2.0
log = structlog.get_logger()


def probe(client: HostClient, machine: Machine, clis: Mapping[str, Any]) -> Probe:
    """Probe a host; `clis` are the templates of its CLIs by name. Raises Unreachable."""
    sent, began = time.time(), time.monotonic()
    answer = client.request(machine, "probe", {"clis": version_commands(clis)})
    return read_answer(answer, sent, time.monotonic() - began)


def read_answer(answer: Mapping[str, Any], sent: float, took: float) -> Probe:
    """The probe of an answer to a request that was sent at `sent` (seconds since 1970) and took `took` seconds."""
    return Probe.from_answer(answer, float(answer.get("now") or sent) - (sent + took / 2), took)


def version_commands(clis: Mapping[str, Any]) -> dict[str, list[str]]:
    """The command that prints the version of each CLI. Leaves out CLIs without a template."""
    found: dict[str, list[str]] = {}
    for name, declared in clis.items():
        try:
            template = catalog.template_of(name, declared)
        except Refused:
            continue
        found[name] = template.version_command
    return found


def record_failure(fleet: Fleet, machine: Machine, why: Unreachable) -> None:
    """Make a host that did not answer unfit, or quarantine it if it is untrusted."""
    record = host_health.quarantine if isinstance(why, Untrusted) else host_health.record_unreachable
    record(fleet, machine.host_id, str(why))


class Prober:
    """Probes the hosts that are due, and opens connections to hosts that take work."""

    def __init__(self, fleet: Fleet, client: HostClient) -> None:
        self._fleet, self._client = fleet, client
        self._probes = ThreadPoolExecutor(PROBES, thread_name_prefix="probe")
        self._connects = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="connect")
        self._lock, self._connected_at = threading.Lock(), float("-inf")
        self._connecting: set[str] = set()

    def probe_due(self) -> int:
        """Probe every host that is due; returns how many became fit while we waited."""
        sent = [self._probes.submit(self._probe, machine) for machine in host_health.take_due(self._fleet)]
        done, _ = wait(sent, timeout=WAIT_SECS)
        return sum(probe.result() for probe in done)

    def keep_connections(self, every: float = CONNECT_EVERY_SECS) -> None:
        """Open the connections that are missing, at most once in `every` seconds.

        Called after each poll and each probe: every process needs its own connections, and chance decides which process
        runs a task. With an odd number of polls between two probes, one of two workers would never probe.
        """
        with self._lock:
            if time.monotonic() - self._connected_at <= every:
                return
            self._connected_at = time.monotonic()
        self.open_connections()

    def open_connections(self) -> None:
        """Connect to the hosts that take work, since connecting would take most of the first start's time.

        Closes the connections to hosts that are quarantined or gone.
        """
        with self._fleet.engine.begin() as conn:
            known = hosts.all_hosts(conn)
            self._client.keep_only({host.host_id for host in known if host.fitness is not Fitness.QUARANTINED})
            usable = [host.host_id for host in known if host.takes_work and not host.is_local]
            missing = [one for one in self._client.without_connection(usable) if one not in self._connecting]
            wanted = missing[: CONNECTIONS - len(self._connecting)]
            machines = hosts.machines(conn, wanted) if wanted else {}
        for host_id, machine in machines.items():
            self._connecting.add(host_id)
            self._connects.submit(self._connect, machine)

    def close(self) -> None:
        """Wait for the probes that are under way."""
        for threads in (self._probes, self._connects):
            threads.shutdown()

    def _probe(self, machine: Machine) -> bool:
        """Probe one host and save the result. Other errors are logged; the host is probed again later."""
        fleet = self._fleet
        try:
            with fleet.engine.begin() as conn:
                clis = hosts.clis_on(conn, machine.host_id)
            is_fit_now = host_health.record_probe(fleet, machine.host_id, probe(self._client, machine, clis))
            if is_fit_now:
                fleet.nudge.soon()
            return is_fit_now
        except Unreachable as why:
            record_failure(fleet, machine, why)
        except Exception:
            log.exception("a probe failed", host=machine.host_id)
        return False

    def _connect(self, machine: Machine) -> None:
        try:
            with suppress(Unreachable):
                self._client.request(machine, "poll", {"runs": []})
        finally:
            self._connecting.discard(machine.host_id)

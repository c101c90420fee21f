"""Decides which hosts may get work, from what probes and failed requests show: fit, unfit, drained, quarantined."""

from datetime import timedelta

import structlog

from app.domain.errors import Kind, Refused
from app.domain.host import Fitness, Host, Machine, Probe, judge
from app.ports import Fleet
from app.store import hosts as host_rows

SOON = timedelta(seconds=10)  # between two probes of a host that is unknown or unfit
LONGEST = timedelta(seconds=90)  # a probe that takes longer has ended with its worker
log = structlog.get_logger()


def take_due(fleet: Fleet) -> list[Machine]:
    """Take the hosts whose probe is due: no other worker probes them meanwhile."""
    at, every = fleet.clock(), timedelta(seconds=fleet.config.probe_secs)
    with fleet.engine.begin() as conn:
        for drained in host_rows.end_drains(conn, at):
            log.info("a host is drained", host=drained)
        return host_rows.take_due_for_probe(conn, at, every, min(SOON, every), at + LONGEST)


def record_probe(fleet: Fleet, host_id: str, probe: Probe) -> bool:
    """Save a probe that the host answered. True if the host is fit now and was not before."""
    fitness, why = judge(probe, fleet.config.least_disk_mb << 20, fleet.config.most_load)
    return _save(fleet, host_id, fitness, why, probe) and fitness is Fitness.FIT


def record_unreachable(fleet: Fleet, host_id: str, why: str) -> None:
    """A host did not answer: it is unfit until a probe is answered."""
    _save(fleet, host_id, Fitness.UNFIT, fleet.mask.text(why)[:1000], None)


def quarantine(fleet: Fleet, host_id: str, why: str) -> None:
    """A host showed another host key or refused our key: quarantine it until an operator resumes it.

    Its runs keep their leases for FLEET_QUARANTINE_GRACE_SECS: they go on there, and are adopted after a resume.
    """
    why, keep = fleet.mask.text(why)[:1000], timedelta(seconds=fleet.config.quarantine_grace_secs)
    with fleet.engine.begin() as conn:
        if host_rows.quarantine(conn, host_id, why, fleet.clock(), keep):
            log.error("security: a host is in quarantine", host=host_id, why=why)


def set_fitness(fleet: Fleet, host_id: str, fitness: Fitness, why: str | None) -> Host:
    """Drain or resume a host for an operator. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        host_rows.set_fitness(conn, host_id, fitness, why, fleet.clock())
        host_rows.end_drains(conn, fleet.clock())
        found = find(host_rows.all_hosts(conn), host_id)
    fleet.nudge.soon()
    return found


def find(hosts: list[Host], host_id: str) -> Host:
    """The host with that id. Raises Refused(unknown)."""
    found = next((host for host in hosts if host.host_id == host_id), None)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no host {host_id!r}; `fleet hosts list` shows those there are.")
    return found


def _save(fleet: Fleet, host_id: str, fitness: Fitness, why: str | None, probe: Probe | None) -> bool:
    with fleet.engine.begin() as conn:
        changed = host_rows.save_probe(conn, host_id, fleet.clock(), fitness, why, probe)
    if changed:
        log.info("a host's fitness changed", host=host_id, fitness=fitness, why=why)
    return changed

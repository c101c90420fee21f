"""Hears what looks at hosts show: who is fit for work, who is away, who is not to be trusted any more."""

from datetime import timedelta

import structlog

from app.domain.errors import Kind, Refused
from app.domain.host import Figures, Fitness, Host, judge
from app.ports import Fleet
from app.store import hosts as host_rows
from app.store.tables import Row

SOON = timedelta(seconds=10)  # how long a host with which something is the matter waits for the next look
LONGEST = timedelta(seconds=90)  # a look that takes so long has died with its process
log = structlog.get_logger()


def due(fleet: Fleet) -> list[Row]:
    """The hosts that someone should look at now, and that nobody else does."""
    at, every = fleet.clock(), timedelta(seconds=fleet.config.probe_secs)
    with fleet.engine.begin() as conn:
        for drained in host_rows.end_drains(conn, at):
            log.info("a host is drained", host=drained)
        return host_rows.due_for_a_look(conn, at, every, min(SOON, every), at + LONGEST)


def seen(fleet: Fleet, host_id: str, figures: Figures) -> bool:
    """A host answered; True if it takes work now and did not before."""
    fitness, why = judge(figures, fleet.config.least_disk_mb << 20, fleet.config.most_load)
    return _looked_at(fleet, host_id, fitness, why, figures) and fitness is Fitness.FIT


def away(fleet: Fleet, host_id: str, why: str) -> None:
    """A host did not answer."""
    _looked_at(fleet, host_id, Fitness.UNFIT, fleet.mask.text(why)[:1000], None)


def distrusted(fleet: Fleet, host_id: str, why: str) -> None:
    """A host showed another key than the pinned one, or refused ours: nobody goes there before an operator has. Its
    runs are kept for that: they go on there, and are adopted when the host is trusted again."""
    why, keep = fleet.mask.text(why)[:1000], timedelta(seconds=fleet.config.quarantine_grace_secs)
    with fleet.engine.begin() as conn:
        if host_rows.quarantine(conn, host_id, why, fleet.clock(), keep):
            log.error("security: a host is in quarantine", host=host_id, why=why)


def set_fitness(fleet: Fleet, host_id: str, fitness: Fitness, why: str | None) -> Host:
    """An operator drains a host or lets it work again. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        host_rows.set_fitness(conn, host_id, fitness, why, fleet.clock())
        host_rows.end_drains(conn, fleet.clock())
        found = find(host_rows.all_hosts(conn), host_id)
    fleet.nudge.soon()
    return found


def find(hosts: list[Host], host_id: str) -> Host:
    """The host of that name. Raises Refused(unknown)."""
    found = next((host for host in hosts if host.host_id == host_id), None)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no host {host_id!r}; `fleet hosts list` shows those there are.")
    return found


def _looked_at(fleet: Fleet, host_id: str, fitness: Fitness, why: str | None, figures: Figures | None) -> bool:
    with fleet.engine.begin() as conn:
        changed = host_rows.looked_at(conn, host_id, fleet.clock(), fitness, why, figures)
    if changed:
        log.info("a host's fitness", host=host_id, fitness=fitness, why=why)
    return changed

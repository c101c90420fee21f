"""Stores hosts: address, slots, fitness and the last probe."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.host import Address, Fitness, Host, Machine, Origin, Probe, Slots
from app.store import runs
from app.store.tables import clis, hosts, slots

REACH = ("ssh_user", "ssh_port", "ssh_key_path", "host_key", "proxy_jump")
UNDECLARED = "no longer declared in fleet.toml"

_jumps = hosts.alias("jumps")
_HOSTS = sa.select(hosts, _jumps.c.hostname.label("jump_hostname"), _jumps.c.reach.label("jump_reach")).outerjoin(
    _jumps, _jumps.c.host_id == hosts.c.reach["proxy_jump"].astext
)


def all_hosts(conn: Connection) -> list[Host]:
    """Every host by id, with its slots and how many of them are taken."""
    taken = runs.count_by_slot(conn)
    of_host: dict[str, list[Slots]] = {}
    for row in conn.execute(sa.select(slots).order_by(slots.c.agent_type)):
        used = taken.get((row.host_id, row.agent_type), 0)
        one = Slots(row.agent_type, row.max_concurrency, frozenset(row.capabilities), used)
        of_host.setdefault(row.host_id, []).append(one)
    machines = map(_machine, conn.execute(_HOSTS.order_by(hosts.c.host_id)))
    return [_with_slots(machine, of_host.get(machine.host_id, [])) for machine in machines]


def machine(conn: Connection, host_id: str) -> Machine | None:
    """A host without its slots."""
    return machines(conn, [host_id]).get(host_id)


def machines(conn: Connection, host_ids: Iterable[str]) -> dict[str, Machine]:
    """These hosts by id, without their slots."""
    found = conn.execute(_HOSTS.where(hosts.c.host_id.in_(list(host_ids))))
    return {row.host_id: _machine(row) for row in found}


def set_fitness(conn: Connection, host_id: str, fitness: Fitness, why: str | None, at: datetime) -> None:
    """Set what an operator decided, or a quarantine. The next probe of the host is due at once."""
    values = {"fitness": fitness, "why": why, "since": at, "probed_at": None}
    conn.execute(sa.update(hosts).where(hosts.c.host_id == host_id).values(values))


def take_due_for_probe(
    conn: Connection, at: datetime, every: timedelta, soon: timedelta, until: datetime
) -> list[Machine]:
    """Take the hosts whose probe is due; no other caller gets them before `until`.

    Due: not probed for `every`, or for `soon` if the host is unknown or unfit. Never due: quarantined hosts, and those
    that are no longer declared.
    """
    doubtful = hosts.c.fitness.in_([Fitness.UNKNOWN, Fitness.UNFIT])
    waited = sa.case((doubtful, at - soon), else_=at - every)
    due = (
        sa.or_(hosts.c.probed_at.is_(None), hosts.c.probed_at <= waited, hosts.c.probed_at > at),
        sa.or_(hosts.c.probing_until.is_(None), hosts.c.probing_until <= at),
        hosts.c.fitness != Fitness.QUARANTINED,
        hosts.c.why.is_distinct_from(UNDECLARED),
    )
    taken = sa.select(hosts.c.host_id).where(*due).with_for_update(skip_locked=True)
    ids = list(conn.execute(taken).scalars())
    conn.execute(sa.update(hosts).where(hosts.c.host_id.in_(ids)).values(probing_until=until))
    return list(map(_machine, conn.execute(_HOSTS.where(hosts.c.host_id.in_(ids)).order_by(hosts.c.host_id))))


def save_probe(
    conn: Connection, host_id: str, at: datetime, fitness: Fitness, why: str | None, probe: Probe | None
) -> bool:
    """Save the result of a probe; `probe` is None if the host did not answer. True if the fitness changed.

    Draining, drained and quarantined hosts keep their fitness: only an operator changes it.
    """
    seen = {"probed_at": at, "probing_until": None} | ({"probe": probe.as_json()} if probe else {})
    conn.execute(sa.update(hosts).where(hosts.c.host_id == host_id).values(seen))
    ours = (hosts.c.host_id == host_id, hosts.c.fitness.in_([Fitness.UNKNOWN, Fitness.FIT, Fitness.UNFIT]))
    moved = (*ours, hosts.c.fitness != fitness)
    changed = conn.execute(sa.update(hosts).where(*moved).values(fitness=fitness, why=why, since=at)).rowcount == 1
    conn.execute(sa.update(hosts).where(*ours).values(why=why))
    return changed


def quarantine(conn: Connection, host_id: str, why: str, at: datetime, keep: timedelta) -> bool:
    """Contact the host no more until an operator resumes it. Its runs keep their leases for `keep`.

    False if it was in quarantine already.
    """
    ours = (hosts.c.host_id == host_id, hosts.c.fitness != Fitness.QUARANTINED)
    values = {"fitness": Fitness.QUARANTINED, "why": why, "since": at, "probing_until": None}
    if conn.execute(sa.update(hosts).where(*ours).values(values)).rowcount != 1:
        return False
    runs.extend_leases_on_host(conn, host_id, at + keep)
    return True


def end_drains(conn: Connection, at: datetime) -> list[str]:
    """Mark draining hosts without open runs as drained; returns their ids."""
    drained = (hosts.c.fitness == Fitness.DRAINING, hosts.c.host_id.not_in(runs.hosts_with_runs()))
    done = sa.update(hosts).where(*drained).values(fitness=Fitness.DRAINED, since=at).returning(hosts.c.host_id)
    return list(conn.execute(done).scalars())


def add_host(conn: Connection, one: Mapping[str, Any]) -> None:
    """Add a host by command, or replace the address, keys and slots of one that was added before."""
    conn.execute(sa.delete(slots).where(slots.c.host_id == one["host_id"]))
    _put_host(conn, one, Origin.ADDED)


def remove_host(conn: Connection, host_id: str) -> None:
    conn.execute(sa.delete(hosts).where(hosts.c.host_id == host_id))


def clis_on(conn: Connection, host_id: str) -> dict[str, dict[str, Any] | None]:
    """The kinds of CLI that a host has slots for, each with the template that fleet.toml declares, if any."""
    declared = sa.select(slots.c.agent_type, clis.c.template).outerjoin(clis, clis.c.name == slots.c.agent_type)
    return {row.agent_type: row.template for row in conn.execute(declared.where(slots.c.host_id == host_id))}


def apply_hosts(conn: Connection, declared: list[dict[str, Any]]) -> None:
    """Make the declared hosts equal to fleet.toml. Hosts added by command stay, unless fleet.toml declares them too."""
    ids = [one["host_id"] for one in declared]
    of_the_file = sa.or_(hosts.c.origin == Origin.DECLARED, hosts.c.host_id.in_(ids))
    conn.execute(sa.delete(slots).where(slots.c.host_id.in_(sa.select(hosts.c.host_id).where(of_the_file))))
    for one in declared:
        _put_host(conn, one, Origin.DECLARED)
    back = sa.and_(hosts.c.host_id.in_(ids), hosts.c.why == UNDECLARED)
    conn.execute(sa.update(hosts).where(back).values(fitness=Fitness.UNKNOWN, why=None))
    gone = sa.and_(of_the_file, hosts.c.host_id.not_in(ids), hosts.c.why.is_distinct_from(UNDECLARED))
    values = {"fitness": Fitness.DRAINING, "why": UNDECLARED, "since": sa.func.now()}
    conn.execute(sa.update(hosts).where(gone).values(values))


def _put_host(conn: Connection, one: Mapping[str, Any], origin: Origin) -> None:
    """Insert or update one host. A new address or key makes its fitness unknown again, also after a quarantine."""
    reach = {name: one.get(name) for name in REACH}
    given = {"hostname": one["hostname"], "reach": reach, "work_dir": one["work_dir"]}
    values = {**given, "labels": one.get("labels") or [], "clis": one.get("clis") or {}, "origin": origin}
    statement = insert(hosts).values(host_id=one["host_id"], fitness=Fitness.UNKNOWN, **values)
    is_new = sa.or_(*(hosts.c[name].is_distinct_from(statement.excluded[name]) for name in given))
    afresh = {
        "fitness": sa.case((is_new, Fitness.UNKNOWN), else_=hosts.c.fitness),
        "why": sa.case((is_new, None), else_=hosts.c.why),
        "since": sa.case((is_new, sa.func.now()), else_=hosts.c.since),
        "probed_at": sa.case((is_new, None), else_=hosts.c.probed_at),
    }
    conn.execute(statement.on_conflict_do_update(index_elements=["host_id"], set_=values | afresh))
    if one["agents"]:
        conn.execute(sa.insert(slots), [{"host_id": one["host_id"], **agent} for agent in one["agents"]])


def _machine(row: Any) -> Machine:
    jump = _address(row.jump_hostname, row.jump_reach) if row.jump_reach else None
    return Machine(
        host_id=row.host_id,
        address=_address(row.hostname, row.reach, jump),
        fitness=Fitness(row.fitness),
        why=row.why,
        work_dir=row.work_dir,
        since=row.since,
        origin=Origin(row.origin),
        labels=tuple(row.labels),
        probe=Probe.from_json(row.probe) if row.probe else None,
        probed_at=row.probed_at,
        proxy_jump=row.reach.get("proxy_jump"),
        clis=row.clis or {},
    )


def _address(hostname: str, reach: Mapping[str, Any], jump: Address | None = None) -> Address:
    keys = tuple(line for line in (reach.get("host_key") or "").splitlines() if line.strip())
    return Address(hostname, reach.get("ssh_port") or 22, reach.get("ssh_user"), reach.get("ssh_key_path"), keys, jump)


def _with_slots(machine: Machine, of_host: list[Slots]) -> Host:
    missing = machine.probe.missing if machine.probe else ()
    marked = tuple(replace(one, missing=one.agent_type in missing) for one in of_host)
    return Host(**vars(machine), slots=marked)

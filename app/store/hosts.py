"""Stores hosts: address, slots, fitness and the last probe."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.host import Fitness, Host, Origin, Slots
from app.store import runs
from app.store.tables import Row, clis, hosts, slots

REACH = ("ssh_user", "ssh_port", "ssh_key_path", "host_key", "proxy_jump")


UNDECLARED = "no longer declared in fleet.toml"


_jumps = hosts.alias("jumps")


_HOSTS = sa.select(hosts, _jumps.c.hostname.label("via_hostname"), _jumps.c.reach.label("via_reach")).outerjoin(
    _jumps, _jumps.c.host_id == hosts.c.reach["proxy_jump"].astext
)


def all_hosts(conn: Connection) -> list[Host]:
    """Every host with its slots and how many of them are taken."""
    taken = runs.taken_slots(conn)
    room: dict[str, list[Slots]] = {}
    for row in conn.execute(sa.select(slots).order_by(slots.c.agent_type)):
        used = taken.get((row.host_id, row.agent_type), 0)
        room.setdefault(row.host_id, []).append(
            Slots(row.agent_type, row.max_concurrency, frozenset(row.capabilities), used)
        )
    rows = conn.execute(sa.select(hosts).order_by(hosts.c.host_id))
    return [_host(row, room.get(row.host_id, [])) for row in rows]


def host(conn: Connection, host_id: str) -> Row | None:
    """A host's row, with `via_hostname` and `via_reach` of the one that it is reached over."""
    return conn.execute(_HOSTS.where(hosts.c.host_id == host_id)).mappings().first()


def hosts_named(conn: Connection, host_ids: Iterable[str]) -> dict[str, Row]:
    """The rows of these hosts, as `host` gives them, by name."""
    found = conn.execute(_HOSTS.where(hosts.c.host_id.in_(list(host_ids)))).mappings()
    return {row["host_id"]: row for row in found}


def set_fitness(conn: Connection, host_id: str, fitness: Fitness, why: str | None, at: datetime) -> None:
    """An operator's word, or a reason for quarantine. The next look at the host is due at once."""
    values = {"fitness": fitness, "why": why, "since": at, "probed_at": None}
    conn.execute(sa.update(hosts).where(hosts.c.host_id == host_id).values(values))


def due_for_a_look(conn: Connection, at: datetime, every: timedelta, soon: timedelta, until: datetime) -> list[Row]:
    """Hosts that nobody has looked at for `every`, or for `soon` where something is the matter; nobody else gets them
    before `until`. Those in quarantine and those that are not declared any more are left alone."""
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
    return list(conn.execute(_HOSTS.where(hosts.c.host_id.in_(ids)).order_by(hosts.c.host_id)).mappings())


def looked_at(
    conn: Connection, host_id: str, at: datetime, fitness: Fitness, why: str | None, probe: dict[str, Any] | None
) -> bool:
    """What a look at a host showed (`probe` is None where it did not answer). True if its fitness is another now: what
    an operator said of it stands, and so does a quarantine."""
    seen: dict[str, Any] = {"probed_at": at, "probing_until": None} | ({"probe": probe} if probe else {})
    conn.execute(sa.update(hosts).where(hosts.c.host_id == host_id).values(seen))
    ours = (hosts.c.host_id == host_id, hosts.c.fitness.in_([Fitness.UNKNOWN, Fitness.FIT, Fitness.UNFIT]))
    moved = (*ours, hosts.c.fitness != fitness)
    changed = conn.execute(sa.update(hosts).where(*moved).values(fitness=fitness, why=why, since=at)).rowcount == 1
    conn.execute(sa.update(hosts).where(*ours).values(why=why))
    return changed


def quarantine(conn: Connection, host_id: str, why: str, at: datetime, keep: timedelta) -> bool:
    """Nobody goes there until an operator says so; what may run there is waited for until then, for `keep` at most.
    False when it was so already."""
    ours = (hosts.c.host_id == host_id, hosts.c.fitness != Fitness.QUARANTINED)
    values = {"fitness": Fitness.QUARANTINED, "why": why, "since": at, "probing_until": None}
    if conn.execute(sa.update(hosts).where(*ours).values(values)).rowcount != 1:
        return False
    runs.keep_on_host(conn, host_id, at + keep)
    return True


def end_drains(conn: Connection, at: datetime) -> list[str]:
    """Hosts that were draining and have no run of ours any more are drained; which."""
    drained = (hosts.c.fitness == Fitness.DRAINING, hosts.c.host_id.not_in(runs.hosts_with_runs()))
    done = sa.update(hosts).where(*drained).values(fitness=Fitness.DRAINED, since=at).returning(hosts.c.host_id)
    return list(conn.execute(done).scalars())


def add_host(conn: Connection, one: Mapping[str, Any]) -> None:
    """A host by command, or another address, keys or slots for one that was added before."""
    conn.execute(sa.delete(slots).where(slots.c.host_id == one["host_id"]))
    _put_host(conn, one, Origin.ADDED)


def remove_host(conn: Connection, host_id: str) -> None:
    conn.execute(sa.delete(hosts).where(hosts.c.host_id == host_id))


def clis_on(conn: Connection, host_id: str) -> dict[str, dict[str, Any] | None]:
    """The kinds of CLI that a host has slots for, each with the template that a user declared for it."""
    declared = sa.select(slots.c.agent_type, clis.c.template).outerjoin(clis, clis.c.name == slots.c.agent_type)
    return {row.agent_type: row.template for row in conn.execute(declared.where(slots.c.host_id == host_id))}


def apply_hosts(conn: Connection, declared: list[dict[str, Any]]) -> None:
    """Hosts that were added by command stay as they are, unless fleet.toml names them now."""
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
    """One whose address or keys are other ones is looked at anew, also if it was in quarantine."""
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


def _host(row: Any, room: list[Slots]) -> Host:
    missing = (row.probe or {}).get("missing") or ()
    return Host(
        row.host_id, row.hostname, tuple(replace(one, missing=one.agent_type in missing) for one in room),
        Fitness(row.fitness), row.why, row.work_dir, row.since, Origin(row.origin), tuple(row.labels), row.probe,
        row.probed_at,
    )  # fmt: skip

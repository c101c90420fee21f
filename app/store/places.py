"""What fleet.toml declared, as rows: forges, rules for repositories, hosts with their slots, CLIs."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.place import Fitness, Host, Slots
from app.store import runs
from app.store.tables import Row, clis, forges, hosts, repositories, rules, slots
from app.store.tables import instance as instances

REACH = ("ssh_user", "ssh_port", "ssh_key_path", "host_key")
UNDECLARED = "no longer declared in fleet.toml"


def apply(conn: Connection, declared: Mapping[str, Any]) -> None:
    """Make the rows equal to what is declared. A host that is no longer declared drains: its runs go on."""
    conn.execute(sa.delete(rules))
    _replace(conn, forges, [{"name": name, **forge} for name, forge in declared["forges"].items()])
    _replace(conn, clis, [{"name": name, "template": cli} for name, cli in declared["clis"].items()])
    if declared["repositories"]:
        conn.execute(sa.insert(rules), [_rule(at, rule) for at, rule in enumerate(declared["repositories"])])
    _apply_hosts(conn, declared["hosts"])


def all_hosts(conn: Connection) -> list[Host]:
    """Every host with its slots and how many of them are taken."""
    taken = runs.taken_slots(conn)
    room: dict[str, list[Slots]] = {}
    for row in conn.execute(sa.select(slots).order_by(slots.c.agent_type)):
        used = taken.get((row.host_id, row.agent_type), 0)
        room.setdefault(row.host_id, []).append(
            Slots(row.agent_type, row.max_concurrency, frozenset(row.capabilities), used)
        )
    return [
        Host(
            row.host_id,
            row.hostname,
            tuple(room.get(row.host_id, ())),
            Fitness(row.fitness),
            row.why,
            row.work_dir,
        )
        for row in conn.execute(sa.select(hosts).order_by(hosts.c.host_id))
    ]


def instance(conn: Connection) -> str:
    """The name of this control plane on its hosts: two of them share a host without meeting."""
    return str(conn.execute(sa.select(instances.c.name)).scalar_one())


def host(conn: Connection, host_id: str) -> Row | None:
    return conn.execute(sa.select(hosts).where(hosts.c.host_id == host_id)).mappings().first()


def set_fitness(conn: Connection, host_id: str, fitness: Fitness, why: str | None = None) -> None:
    conn.execute(sa.update(hosts).where(hosts.c.host_id == host_id).values(fitness=fitness, why=why))


def all_forges(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(forges).order_by(forges.c.name)).mappings())


def forge(conn: Connection, name: str) -> Row | None:
    return conn.execute(sa.select(forges).where(forges.c.name == name)).mappings().first()


def rule_for(conn: Connection, forge: str, full_name: str) -> Row | None:
    """The first rule whose name or pattern fits the repository; None means: not ours to work on."""
    found = conn.execute(sa.select(rules).where(rules.c.forge == forge).order_by(rules.c.position)).mappings()
    return first_rule(found, forge, full_name)


def first_rule(found: Iterable[Row], forge: str, full_name: str) -> Row | None:
    """Of these rules, in their order, the first that fits the repository."""
    fits = (rule for rule in found if rule["forge"] == forge and fnmatchcase(full_name.lower(), rule["name"].lower()))
    return next(fits, None)


def all_rules(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(rules).order_by(rules.c.position)).mappings())


def cli(conn: Connection, name: str) -> dict[str, Any] | None:
    """The template that a user declared for the CLI `name`."""
    return conn.execute(sa.select(clis.c.template).where(clis.c.name == name)).scalar()


def remember_repository(conn: Connection, forge: str, values: Mapping[str, Any]) -> None:
    """Keep a repository's present name and address under the id that survives a rename."""
    statement = insert(repositories).values(forge=forge, **values)
    rest = {name: statement.excluded[name] for name in values if name != "id"}
    conn.execute(statement.on_conflict_do_update(index_elements=["forge", "id"], set_=rest))


def repository(conn: Connection, forge: str, id_: int) -> Row | None:
    where = (repositories.c.forge == forge, repositories.c.id == id_)
    return conn.execute(sa.select(repositories).where(*where)).mappings().first()


def all_repositories(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(repositories).order_by(repositories.c.full_name)).mappings())


def _rule(position: int, rule: Mapping[str, Any]) -> dict[str, Any]:
    return {"position": position, **rule}


def _apply_hosts(conn: Connection, declared: list[dict[str, Any]]) -> None:
    conn.execute(sa.delete(slots))
    known = set(conn.execute(sa.select(hosts.c.host_id)).scalars())
    for one in declared:
        reach = {name: one[name] for name in REACH}
        values = {"hostname": one["hostname"], "work_dir": one["work_dir"], "reach": reach}
        statement = insert(hosts).values(host_id=one["host_id"], fitness=Fitness.UNKNOWN, **values)
        conn.execute(statement.on_conflict_do_update(index_elements=["host_id"], set_=values))
        conn.execute(sa.insert(slots), [{"host_id": one["host_id"], **agent} for agent in one["agents"]])
    back = sa.and_(hosts.c.host_id.in_([one["host_id"] for one in declared]), hosts.c.why == UNDECLARED)
    conn.execute(sa.update(hosts).where(back).values(fitness=Fitness.UNKNOWN, why=None))
    for gone in known - {one["host_id"] for one in declared}:
        set_fitness(conn, gone, Fitness.DRAINED, UNDECLARED)


def _replace(conn: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    conn.execute(sa.delete(table))
    if rows:
        conn.execute(sa.insert(table), rows)

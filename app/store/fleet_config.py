"""What fleet.toml declared, as rows: forges, rules for repositories, hosts with their slots, CLIs, prices."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.store.hosts import apply_hosts
from app.store.repositories import repository
from app.store.tables import Row, clis, forges, rules
from app.store.tables import instance as instances
from app.store.tables import prices as price_rows


def apply(conn: Connection, declared: Mapping[str, Any]) -> None:
    """Make the rows equal to what is declared. A host that is no longer declared drains: its runs go on."""
    conn.execute(sa.delete(rules))
    _replace(conn, forges, [{"name": name, **forge} for name, forge in declared["forges"].items()])
    _replace(conn, clis, [{"name": name, "template": cli} for name, cli in declared["clis"].items()])
    own = {
        model: {**price, "as_of": str(price.get("as_of", "fleet.toml"))} for model, price in declared["prices"].items()
    }
    _replace(conn, price_rows, [{"model": model, "price": price} for model, price in own.items()])
    if declared["repositories"]:
        conn.execute(sa.insert(rules), [_rule(at, rule) for at, rule in enumerate(declared["repositories"])])
    apply_hosts(conn, declared["hosts"])


def instance(conn: Connection) -> str:
    """The name of this control plane on its hosts: two of them share a host without meeting."""
    return str(conn.execute(sa.select(instances.c.name)).scalar_one())


def all_forges(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(forges).order_by(forges.c.name)).mappings())


def forge(conn: Connection, name: str) -> Row | None:
    return conn.execute(sa.select(forges).where(forges.c.name == name)).mappings().first()


def rule_for(conn: Connection, forge: str, full_name: str) -> Row | None:
    """The first rule whose name or pattern fits the repository; None means: not ours to work on."""
    found = conn.execute(sa.select(rules).where(rules.c.forge == forge).order_by(rules.c.position)).mappings()
    return first_rule(found, forge, full_name)


def rule_of(conn: Connection, forge: str | None, repository_id: int | None) -> Row | None:
    """The rule for a repository under the name that it has now."""
    row = repository(conn, forge, repository_id) if forge and repository_id else None
    return rule_for(conn, forge or "", row["full_name"]) if row else None


def first_rule(found: Iterable[Row], forge: str, full_name: str) -> Row | None:
    """Of these rules, in their order, the first that fits the repository."""
    fits = (rule for rule in found if rule["forge"] == forge and fnmatchcase(full_name.lower(), rule["name"].lower()))
    return next(fits, None)


def all_rules(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(rules).order_by(rules.c.position)).mappings())


def cli(conn: Connection, name: str) -> dict[str, Any] | None:
    """The template that a user declared for the CLI `name`."""
    return conn.execute(sa.select(clis.c.template).where(clis.c.name == name)).scalar()


def all_clis(conn: Connection) -> list[Row]:
    """Every CLI that a user declared, with its template."""
    return list(conn.execute(sa.select(clis).order_by(clis.c.name)).mappings())


def prices(conn: Connection) -> dict[str, dict[str, Any]]:
    """What models cost, as fleet.toml says, in dollars for a million tokens."""
    return {row.model: row.price for row in conn.execute(sa.select(price_rows))}


def cli_declaration(
    conn: Connection, cli_name: str, rule: Row | None, host_row: Row | None
) -> tuple[dict[str, Any] | None, list[Mapping[str, Any]]]:
    """How a CLI is declared, and what is changed about that where it runs: from these the template of a run is made."""
    return cli(conn, cli_name), cli_changes(cli_name, rule, host_row)


def cli_changes(cli_name: str, rule: Row | None, host_row: Row | None) -> list[Mapping[str, Any]]:
    """What the rule of a repository and a host change about a CLI's template, the host's last."""
    return [row["clis"][cli_name] for row in (rule, host_row) if row and (row["clis"] or {}).get(cli_name)]


def _rule(position: int, rule: Mapping[str, Any]) -> dict[str, Any]:
    return {"position": position, **rule}


def _replace(conn: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    conn.execute(sa.delete(table))
    if rows:
        conn.execute(sa.insert(table), rows)

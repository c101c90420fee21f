"""Stores what fleet.toml declares: forges, rules for repositories, hosts with their slots, CLIs, prices."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.domain.host import Machine
from app.domain.repository import ForgeRecord, Rule
from app.store.hosts import apply_hosts
from app.store.repositories import repository
from app.store.tables import Row, clis, forges, rules
from app.store.tables import instance as instances
from app.store.tables import prices as price_rows

Table = Mapping[str, Any]  # a table of fleet.toml, as its schema checked it


def apply(conn: Connection, declared: Table) -> None:
    """Make the rows equal to what is declared. A host that is no longer declared drains: its runs go on."""
    conn.execute(sa.delete(rules))
    _replace(conn, forges, [{"name": name, **forge} for name, forge in declared["forges"].items()])
    _replace(conn, clis, [{"name": name, "template": cli} for name, cli in declared["clis"].items()])
    _replace(conn, price_rows, [{"model": model, "price": _dated(of)} for model, of in declared["prices"].items()])
    if declared["repositories"]:
        found = [{"position": position, **rule} for position, rule in enumerate(declared["repositories"])]
        conn.execute(sa.insert(rules), found)
    apply_hosts(conn, declared["hosts"])


def instance(conn: Connection) -> str:
    """The name of this control plane on hosts. It separates several control planes that share a host."""
    return str(conn.execute(sa.select(instances.c.name)).scalar_one())


# --- forges and rules ------------------------------------------------------------------------------------


def all_forges(conn: Connection) -> list[ForgeRecord]:
    return [_forge(row) for row in conn.execute(sa.select(forges).order_by(forges.c.name)).mappings()]


def forge(conn: Connection, name: str | None) -> ForgeRecord | None:
    row = conn.execute(sa.select(forges).where(forges.c.name == name)).mappings().first()
    return _forge(row) if row else None


def all_rules(conn: Connection) -> list[Rule]:
    """Every rule, in the order of fleet.toml."""
    return [_rule(row) for row in conn.execute(sa.select(rules).order_by(rules.c.position)).mappings()]


def rule_for(conn: Connection, forge: str, full_name: str) -> Rule | None:
    """The first rule that fits a repository's name; None if the fleet does not work on it."""
    found = conn.execute(sa.select(rules).where(rules.c.forge == forge).order_by(rules.c.position)).mappings()
    return first_rule(map(_rule, found), forge, full_name)


def rule_of(conn: Connection, forge: str | None, repository_id: int | None) -> Rule | None:
    """The rule for a repository by its id, under its current name."""
    found = repository(conn, forge, repository_id) if forge and repository_id else None
    return rule_for(conn, found.forge, found.full_name) if found else None


def first_rule(found: Iterable[Rule], forge: str, full_name: str) -> Rule | None:
    """The first of these rules that fits a repository's name."""
    fits = (rule for rule in found if rule.forge == forge and fnmatchcase(full_name.lower(), rule.name.lower()))
    return next(fits, None)


# --- CLIs and prices -------------------------------------------------------------------------------------


def cli(conn: Connection, name: str) -> dict[str, Any] | None:
    """The template that fleet.toml declares for the CLI `name`."""
    return conn.execute(sa.select(clis.c.template).where(clis.c.name == name)).scalar()


def cli_templates(conn: Connection) -> dict[str, Table]:
    """The template of every CLI that fleet.toml declares, by its name."""
    return {row.name: row.template for row in conn.execute(sa.select(clis).order_by(clis.c.name))}


def prices(conn: Connection) -> dict[str, dict[str, Any]]:
    """The prices of models in fleet.toml, in dollars per million tokens."""
    return {row.model: row.price for row in conn.execute(sa.select(price_rows))}


def cli_declaration(
    conn: Connection, cli_name: str, rule: Rule | None, host: Machine | None
) -> tuple[dict[str, Any] | None, list[Table]]:
    """The declaration of a CLI, and the changes to it by `cli_changes`. A run's template is made from both."""
    return cli(conn, cli_name), cli_changes(cli_name, rule, host)


def cli_changes(cli_name: str, rule: Rule | None, host: Machine | None) -> list[Table]:
    """What a repository's rule and a host change about a CLI's template, the host's changes last."""
    sources = [rule.clis if rule else {}, host.clis if host else {}]
    return [clis[cli_name] for clis in sources if clis.get(cli_name)]


# --- rows ------------------------------------------------------------------------------------------------


def _forge(row: Row) -> ForgeRecord:
    return ForgeRecord(**{**row, "bots": tuple(row["bots"]), "labels": row["labels"] or {}})


def _rule(row: Row) -> Rule:
    return Rule(**{**row, "validation": tuple(row["validation"]), "reviewers": tuple(row["reviewers"])})


def _dated(price: Table) -> Table:
    return {**price, "as_of": str(price.get("as_of", "fleet.toml"))}


def _replace(conn: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    conn.execute(sa.delete(table))
    if rows:
        conn.execute(sa.insert(table), rows)

"""`fleet config`, `fleet apply`, `fleet migrate`: what is in force, and bringing the database up to it."""

import os
import re
from pathlib import Path
from typing import Any

import click

from app import wiring
from app.cli.output import as_json, table
from app.config import fleet_toml, settings
from app.config.settings import ConfigError
from app.domain.masking import MASK
from app.store import fleet_config
from app.store.migrate import migrate as migrate_database


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def apply(file: Path | None) -> None:
    """Make the database hold what FILE (or FLEET_CONFIG) declares: forges, repositories, hosts, CLIs."""
    fleet = wiring.fleet(connections=1)
    path = file or fleet.config.fleet_toml
    if path is None:
        raise ConfigError(["There is nothing to apply: name a file, or set FLEET_CONFIG."])
    declared = fleet_toml.read_toml(path)
    with fleet.engine.begin() as conn:
        fleet_config.apply(conn, declared)
    counts = ", ".join(f"{len(declared[name])} {name}" for name in ("forges", "repositories", "hosts", "clis"))
    click.echo(f"fleet: applied {path}: {counts}", err=True)


@click.command()
def migrate() -> None:
    """Bring the database's schema up to this version's."""
    fleet = wiring.fleet(connections=1)
    click.echo(f"fleet: the schema is at {migrate_database(fleet.engine)}", err=True)


@click.command()
@click.option("--json", "json_", is_flag=True, help="For programs.")
def config(json_: bool) -> None:
    """Show the settings in force, and what fleet.toml declares; secrets masked."""
    found = settings.read(os.environ)
    shown: dict[str, Any] = {
        name: str(getattr(found, name)) for name in found.__dataclass_fields__ if name != "secrets"
    }
    shown |= {
        "database_url": _without_password(found.database_url),
        "redis_url": _without_password(found.redis_url),
    }
    shown |= {name: MASK if found.secret(name) else None for name in settings.SECRETS}
    shown |= _declared(found)
    if json_:
        return as_json(shown)
    table(("setting", "value"), [(name, _in_words(value)) for name, value in shown.items()])


def _in_words(value: Any) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else "not set" if value is None else str(value)


def _declared(found: settings.Config) -> dict[str, Any]:
    """What there is by fleet.toml, by name; of each forge whether its token and its webhook secret are given."""
    declared = fleet_toml.read_toml(found.fleet_toml) if found.fleet_toml else fleet_toml.FleetTomlSchema().load({})
    shown: dict[str, Any] = {}
    for name, forge in declared["forges"].items():
        shown[f"forge {name}"] = forge["url"]
        for what in ("token", "webhook_secret"):
            given = found.secret(forge[f"{what}_env"], forge[f"{what}_file"])
            shown[f"forge {name} {what}"] = MASK if given else None
    return shown | {
        "repositories": [f"{one['forge']} {one['name']}" for one in declared["repositories"]],
        "hosts": [one["host_id"] for one in declared["hosts"]],
        "clis": sorted(declared["clis"]),
    }


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login, at, where = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    where = re.sub(r"(?i)(password=)[^&]*", rf"\1{MASK}", where)
    return f"{scheme}://{user}{f':{MASK}' if colon else ''}{at}{where}"

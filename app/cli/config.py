"""`fleet config`, `fleet apply`, `fleet migrate`: show the settings; bring the database up to date with them."""

import os
import re
from pathlib import Path

import click

from app.cli.connect import open_fleet
from app.cli.output import json_option, print_json, print_table
from app.config import fleet_toml, settings
from app.config.settings import ConfigError
from app.domain.masking import MASK


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def apply(file: Path | None) -> None:
    """Write what fleet.toml declares to the database.

    FILE declares forges, repositories, hosts and CLIs. By default it is the file that FLEET_CONFIG names.
    """
    from app.store import fleet_config

    fleet = open_fleet()
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
    """Upgrade the database schema to this version."""
    from app.store.migrate import migrate as migrate_database

    click.echo(f"fleet: the schema is at {migrate_database(open_fleet().engine)}", err=True)


@click.command()
@json_option
def config(json_: bool) -> None:
    """Show the settings in force, secrets masked.

    Also shows what fleet.toml declares.
    """
    found = settings.read(os.environ)
    shown = _settings(found) | _declared(found)
    if json_:
        return print_json(shown)
    print_table(("setting", "value"), [(name, _as_text(value)) for name, value in shown.items()])


def _settings(found: settings.Config) -> dict[str, object]:
    values: dict[str, object] = {
        name: str(getattr(found, name)) for name in found.__dataclass_fields__ if name != "secrets"
    }
    urls = {
        "database_url": _without_password(found.database_url),
        "redis_url": _without_password(found.redis_url),
    }
    return values | urls | {name: MASK if found.secret(name) else None for name in settings.SECRETS}


def _declared(found: settings.Config) -> dict[str, object]:
    """The names that fleet.toml declares, and for each forge whether it has a token and a webhook secret."""
    declared = fleet_toml.read_toml(found.fleet_toml) if found.fleet_toml else fleet_toml.FleetTomlSchema().load({})
    shown: dict[str, object] = {}
    for name, forge in declared["forges"].items():
        shown[f"forge {name}"] = forge["url"]
        for secret in ("token", "webhook_secret"):
            given = found.secret(forge[f"{secret}_env"], forge[f"{secret}_file"])
            shown[f"forge {name} {secret}"] = MASK if given else None
    return shown | {
        "repositories": [f"{rule['forge']} {rule['name']}" for rule in declared["repositories"]],
        "hosts": [host["host_id"] for host in declared["hosts"]],
        "clis": sorted(declared["clis"]),
    }


def _as_text(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else "not set" if value is None else str(value)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login, at, where = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    where = re.sub(r"(?i)(password=)[^&]*", rf"\1{MASK}", where)
    return f"{scheme}://{user}{f':{MASK}' if colon else ''}{at}{where}"

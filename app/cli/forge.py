"""`fleet forge`, `fleet doctor`: set up what lies between us and a forge, try it out, and find what is wrong."""

import time
from dataclasses import asdict
from typing import Any

import click

from app import wiring
from app.cli.shown import as_json, table
from app.domain.errors import Kind, Refused
from app.forgejo import hooks
from app.forgejo.wire import Wire
from app.ports import Fleet
from app.services import doctor as examination
from app.store import deliveries, places
from app.store.tables import Row

PATIENCE_SECS = 10.0
SETUP_TOKEN = "FLEET_SETUP_TOKEN"  # noqa: S105 - its name, not the token
json_option = click.option("--json", "json_", is_flag=True, help="For programs.")
forge_option = click.option("--forge", "name", help="The forge's name in fleet.toml, where there are several.")


@click.group()
def forge() -> None:
    """Make hooks on a forge, and try them out."""


@forge.command()
@click.argument("where")
@forge_option
def add(where: str, name: str | None) -> None:
    """Make the hook of WHERE, a repository (owner/name) or an organisation. That takes an admin's token:
    FLEET_SETUP_TOKEN if set, else the bot's; without one that may, it prints what to enter by hand."""
    fleet = wiring.fleet(connections=1)
    row = _row(fleet, name)
    url, secret = f"{fleet.config.public_url}{hooks.PATH}", _newest_secret(fleet, row)
    try:
        hook, is_new = hooks.ensure(_wire(fleet, row), where, url, secret)
    except Refused as no:
        if no.kind not in (Kind.FORBIDDEN, Kind.UNAUTHORIZED, Kind.UNKNOWN):
            raise
        click.echo(f"fleet: {no}", err=True)
        return _by_hand(row, where, url)
    click.echo(f"{where}: hook {hook.id} {'was made' if is_new else 'was there'} and brings everything to {hook.url}")


@forge.command()
@click.argument("where")
@forge_option
@json_option
def test(where: str, name: str | None, json_: bool) -> None:
    """Have the forge send a test delivery to the hook of WHERE, and wait until it is here."""
    fleet = wiring.fleet(connections=1)
    row = _row(fleet, name)
    wire, url = _wire(fleet, row), f"{fleet.config.public_url}{hooks.PATH}"
    hook = next((one for one in hooks.of(wire, where) or () if one.url == url), None)
    if hook is None:
        raise Refused(Kind.UNKNOWN, f"{where} has no hook to {url} that this token can see: `fleet forge add {where}`.")
    begun = fleet.clock()
    hooks.try_out(wire, where, hook)
    arrived = _wait(fleet, row["name"], begun)
    if json_:
        as_json({"hook": hook.id, "url": hook.url, "faults": hook.faults(), "arrived": arrived})
    if not arrived:
        raise Refused(
            Kind.UNAVAILABLE,
            f"The test delivery did not arrive at {url} within {PATIENCE_SECS:.0f} s. Look at the hook's recent "
            "deliveries on the forge; most often [webhook] ALLOWED_HOST_LIST does not name this machine.",
        )
    if not json_:
        click.echo(f"{where}: the test delivery arrived{''.join(f'; but {fault}' for fault in hook.faults())}")


@click.command()
@json_option
def doctor(json_: bool) -> None:
    """Find what is set up wrong between us and the forges, and say how to mend it."""
    fleet = wiring.fleet(connections=1)
    found = examination.examine(fleet, lambda name: _wire(fleet, _row(fleet, name), bot=True))
    if json_:
        as_json([asdict(one) for one in found])
    else:
        table(("", "", "", "what to do"), [(one.about, one.state, one.said, one.mend) for one in found])
    wrong = sum(one.state == examination.WRONG for one in found)
    if wrong:
        raise Refused(Kind.INVALID, f"{wrong} of {len(found)} things are wrong.")


def _row(fleet: Fleet, name: str | None) -> Row:
    with fleet.engine.begin() as conn:
        rows = [row for row in places.all_forges(conn) if name in (None, row["name"])]
    if len(rows) != 1:
        known = ", ".join(row["name"] for row in rows) or "none"
        raise Refused(Kind.INVALID, f"Say which forge with --forge; fleet.toml declares {known}.")
    return rows[0]


def _wire(fleet: Fleet, row: Row, bot: bool = False) -> Wire:
    """The forge with the token of whoever sets it up."""
    given = None if bot else fleet.config.secret(SETUP_TOKEN)
    token = given or fleet.config.secret(row["token_env"], row["token_file"])
    if not token:
        raise Refused(Kind.INVALID, f"There is no token for {row['name']}: set {row['token_env']} or {SETUP_TOKEN}.")
    return Wire(row["name"], row["url"], token, wiring.now)


def _newest_secret(fleet: Fleet, row: Row) -> str:
    """The secret for a new hook: of several, the first."""
    secret = fleet.config.secret(row["webhook_secret_env"], row["webhook_secret_file"])
    if not secret:
        raise Refused(Kind.INVALID, f"There is no webhook secret: set {row['webhook_secret_env']}.")
    return (wiring.secrets_in(secret) or (secret,))[0]


def _by_hand(row: Row, where: str, url: str) -> None:
    kind = "Repository" if "/" in where else "Organisation"
    rows: list[tuple[str, Any]] = [
        ("page", f"{row['url'].rstrip('/')}/{where if '/' in where else f'org/{where}'}/settings/hooks"),
        ("type", "Forgejo"),
        ("target URL", url),
        ("method, content type", "POST, application/json"),
        ("secret", f"what {row['webhook_secret_env']} holds; by default FLEET_HOME/secrets/webhook-secret"),
        ("trigger on", "custom events: issues, comments, pull requests (all), push, create, delete, action runs"),
        ("active", "yes"),
    ]  # fmt: skip
    click.echo(f"Let an admin of it add this hook ({kind} settings, Webhooks):")
    table(("", ""), rows)


def _wait(fleet: Fleet, name: str, begun: Any) -> bool:
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until:
        with fleet.engine.begin() as conn:
            if deliveries.newest_test(conn, name, begun):
                return True
        time.sleep(0.2)
    return False

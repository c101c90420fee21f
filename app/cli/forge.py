"""`fleet forge`, `fleet doctor`: create and test webhooks on a forge; find faults in the setup."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from app import wiring
from app.cli.output import print_json, print_paragraphs, print_table
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.repository import ForgeRecord
from app.forgejo import hooks
from app.forgejo.http import HttpClient
from app.ports import Fleet
from app.services.forge import doctor as examination
from app.store import deliveries, fleet_config

PATIENCE_SECS = 10.0
SETUP_TOKEN = "FLEET_SETUP_TOKEN"  # noqa: S105 - its name, not the token
json_option = click.option("--json", "json_", is_flag=True, help="Print JSON.")
forge_option = click.option("--forge", "name", help="The forge's name in fleet.toml, if there are several.")


@click.group()
def forge() -> None:
    """Create webhooks on a forge and test them."""


@forge.command()
@click.argument("where")
@forge_option
@click.option("--anew", is_flag=True, help="Replace an existing hook, so that it uses the current secret.")
@click.option("--test/--no-test", "try_it", default=True, help="Ask the forge for a test delivery. [default: test]")
def add(where: str, name: str | None, anew: bool, try_it: bool) -> None:
    """Create the webhook of a repository or an organisation.

    WHERE is owner/name or an organisation. The hook is then tested. This needs the token of an admin of WHERE:
    FLEET_SETUP_TOKEN if it is set, else the bot's token. Without permission, prints what to enter by hand.
    """
    fleet = wiring.fleet(connections=1)
    row = _row(fleet, name)
    url, secret = f"{fleet.config.public_url}{hooks.PATH}", _newest_secret(fleet, row)
    try:
        hook, is_new = hooks.ensure_hook(_wire(fleet, row), where, url, secret, anew)
    except Refused as no:
        if no.kind not in (Kind.FORBIDDEN, Kind.UNAUTHORIZED, Kind.UNKNOWN):
            raise
        click.echo(f"fleet: {no}", err=True)
        _by_hand(row, where, url)
        return _looked_at(fleet, row, where)
    click.echo(f"{where}: hook {hook.id} {'was made' if is_new else 'was there'} and brings everything to {hook.url}")
    _looked_at(fleet, row, where)
    if try_it and "/" in where:
        _have_tested(fleet, row, where, hook)
        click.echo(f"{where}: a test delivery arrived")


@forge.command()
@click.argument("where")
@forge_option
@json_option
def test(where: str, name: str | None, json_: bool) -> None:
    """Ask the forge for a test delivery, and wait for it.

    WHERE is a repository, owner/name.
    """
    fleet = wiring.fleet(connections=1)
    row = _row(fleet, name)
    url = f"{fleet.config.public_url}{hooks.PATH}"
    hook = next((one for one in hooks.list_hooks(_wire(fleet, row), where) or () if one.url == url), None)
    if hook is None:
        raise Refused(Kind.UNKNOWN, f"{where} has no hook to {url} that this token can see: `fleet forge add {where}`.")
    said = {"hook": hook.id, "url": hook.url, "faults": hook.faults()}
    try:
        _have_tested(fleet, row, where, hook)
    except Unavailable:
        if json_:
            print_json(said | {"arrived": False})
        raise
    if json_:
        print_json(said | {"arrived": True})
    else:
        click.echo(f"{where}: the test delivery arrived{''.join(f'; but {fault}' for fault in hook.faults())}")


@click.command()
@json_option
def doctor(json_: bool) -> None:
    """Find faults in the setup of forges and webhooks.

    Says how to fix each. Only admins may list webhooks: to check those, set FLEET_SETUP_TOKEN to an admin's token.
    """
    fleet = wiring.fleet(connections=1)
    admin = fleet.config.secret(SETUP_TOKEN) and (lambda name: _wire(fleet, _row(fleet, name)))
    found = examination.examine(fleet, lambda name: _wire(fleet, _row(fleet, name), bot=True), admin or None)
    if json_:
        print_json([asdict(one) for one in found])
    else:
        _show(found)
    wrong = sum(one.state == examination.WRONG for one in found)
    if wrong:
        raise Refused(Kind.INVALID, f"{wrong} of {len(found)} things are wrong.")


def _row(fleet: Fleet, name: str | None) -> ForgeRecord:
    with fleet.engine.begin() as conn:
        rows = [row for row in fleet_config.all_forges(conn) if name in (None, row.name)]
    if len(rows) != 1:
        known = ", ".join(row.name for row in rows) or "none"
        raise Refused(Kind.INVALID, f"Say which forge with --forge; fleet.toml declares {known}.")
    return rows[0]


def _wire(fleet: Fleet, row: ForgeRecord, bot: bool = False) -> HttpClient:
    """The forge with the token of whoever sets it up."""
    given = None if bot else fleet.config.secret(SETUP_TOKEN)
    token = given or fleet.config.secret(row.token_env, row.token_file)
    if not token:
        raise Refused(Kind.INVALID, f"There is no token for {row.name}: set {row.token_env} or {SETUP_TOKEN}.")
    return HttpClient(row.name, row.url, token, wiring.now)


def _newest_secret(fleet: Fleet, row: ForgeRecord) -> str:
    """The secret for a new hook: of several, the first."""
    secret = fleet.config.secret(row.webhook_secret_env, row.webhook_secret_file)
    if not secret:
        raise Refused(Kind.INVALID, f"There is no webhook secret: set {row.webhook_secret_env}.")
    return (wiring.secrets_in(secret) or (secret,))[0]


def _looked_at(fleet: Fleet, row: ForgeRecord, where: str) -> None:
    """Show what would keep the hook from being of use, by the bot's own token."""
    found = examination.check(fleet, row, _wire(fleet, row, bot=True), where)
    _show([one for one in found if one.state != examination.GOOD and not one.about.endswith(": hook")])


def _show(found: Iterable[examination.Finding]) -> None:
    """One finding below the other, what to do under each; as wide as the terminal, and no word of it left out."""
    rows = [(one.state, f"{one.about}: {one.said}" + (f"\n-> {one.mend}" if one.mend else "")) for one in found]
    print_paragraphs(rows)


def _have_tested(fleet: Fleet, row: ForgeRecord, where: str, hook: hooks.Hook) -> None:
    """Raises Unavailable where the test delivery that the forge is asked for does not arrive."""
    begun = fleet.clock()
    hooks.send_test(_wire(fleet, row), where, hook)
    if not _wait(fleet, row.name, begun):
        raise Unavailable(
            f"The test delivery did not arrive at {hook.url} within {PATIENCE_SECS:.0f} s. If `fleet up` is running, "
            "look at the hook's recent deliveries on the forge: most often [webhook] ALLOWED_HOST_LIST does not name "
            "this machine, or the hook was made with another secret (`fleet forge add --anew`)."
        )


def _by_hand(row: ForgeRecord, where: str, url: str) -> None:
    kind = "Repository" if "/" in where else "Organisation"
    rows: list[tuple[str, Any]] = [
        ("page", f"{row.url.rstrip('/')}/{where if '/' in where else f'org/{where}'}/settings/hooks"),
        ("type", "Forgejo"),
        ("target URL", url),
        ("method, content type", "POST, application/json"),
        ("secret", f"what {row.webhook_secret_env} holds; by default FLEET_HOME/secrets/webhook-secret"),
        ("trigger on", "custom events: issues, comments, pull requests (all), push, create, delete, action runs"),
        ("active", "yes"),
    ]  # fmt: skip
    click.echo(f"Let an admin of it add this hook ({kind} settings, Webhooks):")
    print_table(("", ""), rows)


def _wait(fleet: Fleet, name: str, begun: Any) -> bool:
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until:
        with fleet.engine.begin() as conn:
            if deliveries.has_test_since(conn, name, begun):
                return True
        time.sleep(0.2)
    return False

"""`fleet forge`, `fleet doctor`: create and test webhooks on a forge; find faults in the setup."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta

import click

from app.cli.connect import open_fleet
from app.cli.output import json_option, print_json, print_paragraphs, print_table
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.repository import ForgeRecord
from app.forgejo import hooks
from app.forgejo.http import HttpClient
from app.ports import Fleet
from app.services.forge import doctor as examination
from app.store import deliveries, fleet_config
from app.wiring import secrets_in

TEST_DELIVERY_WAIT = timedelta(seconds=10)
PAUSE_SECS = 0.2
SETUP_TOKEN = "FLEET_SETUP_TOKEN"  # noqa: S105 - its name, not the token
forge_option = click.option("--forge", "name", help="The forge's name in fleet.toml, if there are several.")


@click.group()
def forge() -> None:
    """Create webhooks on a forge and test them."""


@forge.command()
@click.argument("where")
@forge_option
@click.option("--anew", is_flag=True, help="Replace an existing hook, so that it uses the current secret.")
@click.option("--test/--no-test", "with_test", default=True, help="Ask the forge for a test delivery. [default: test]")
def add(where: str, name: str | None, anew: bool, with_test: bool) -> None:
    """Create the webhook of a repository or an organisation.

    WHERE is owner/name or an organisation. The hook is then tested. This needs the token of an admin of WHERE:
    FLEET_SETUP_TOKEN if it is set, else the bot's token. Without permission, prints what to enter by hand.
    """
    fleet = open_fleet()
    record = _find_forge(fleet, name)
    url, secret = f"{fleet.config.public_url}{hooks.PATH}", _webhook_secret(fleet, record)
    try:
        hook, is_new = hooks.ensure_hook(_admin_client(fleet, record), where, url, secret, anew)
    except Refused as refused:
        if refused.kind not in (Kind.FORBIDDEN, Kind.UNAUTHORIZED, Kind.UNKNOWN):
            raise
        click.echo(f"fleet: {refused}", err=True)
        _print_manual_steps(record, where, url)
        return _print_faults(fleet, record, where)
    click.echo(f"{where}: hook {hook.id} {'was created' if is_new else 'exists'} and sends to {hook.url}")
    _print_faults(fleet, record, where)
    if with_test and "/" in where:
        _test_delivery(fleet, record, where, hook)
        click.echo(f"{where}: a test delivery arrived")


@forge.command()
@click.argument("where")
@forge_option
@json_option
def test(where: str, name: str | None, json_: bool) -> None:
    """Ask the forge for a test delivery, and wait for it.

    WHERE is a repository, owner/name.
    """
    fleet = open_fleet()
    record = _find_forge(fleet, name)
    url = f"{fleet.config.public_url}{hooks.PATH}"
    listed = hooks.list_hooks(_admin_client(fleet, record), where) or ()
    hook = next((hook for hook in listed if hook.url == url), None)
    if hook is None:
        raise Refused(Kind.UNKNOWN, f"This token sees no hook of {where} to {url}: `fleet forge add {where}`.")
    result = {"hook": hook.id, "url": hook.url, "faults": hook.faults()}
    try:
        _test_delivery(fleet, record, where, hook)
    except Unavailable:
        if json_:
            print_json(result | {"arrived": False})
        raise
    if json_:
        return print_json(result | {"arrived": True})
    click.echo(f"{where}: the test delivery arrived{''.join(f'; but {fault}' for fault in hook.faults())}")


@click.command()
@json_option
def doctor(json_: bool) -> None:
    """Find faults in the setup of forges and webhooks.

    Says how to fix each. Only admins may list webhooks: to check those, set FLEET_SETUP_TOKEN to an admin's token.
    """
    fleet = open_fleet()
    admin = fleet.config.secret(SETUP_TOKEN) and (lambda name: _admin_client(fleet, _find_forge(fleet, name)))
    found = examination.examine(fleet, lambda name: _bot_client(fleet, _find_forge(fleet, name)), admin or None)
    if json_:
        print_json([asdict(finding) for finding in found])
    else:
        _print_findings(found)
    wrong = sum(finding.state == examination.WRONG for finding in found)
    if wrong:
        raise Refused(Kind.INVALID, f"{wrong} of {len(found)} checks failed.")


def _find_forge(fleet: Fleet, name: str | None) -> ForgeRecord:
    """The declared forge with this name, or the only one."""
    with fleet.engine.begin() as conn:
        records = [record for record in fleet_config.all_forges(conn) if name in (None, record.name)]
    if len(records) != 1:
        known = ", ".join(record.name for record in records) or "none"
        raise Refused(Kind.INVALID, f"Name the forge with --forge; fleet.toml declares {known}.")
    return records[0]


def _admin_client(fleet: Fleet, record: ForgeRecord) -> HttpClient:
    """A client with FLEET_SETUP_TOKEN, if it is set; else with the bot's token."""
    token = fleet.config.secret(SETUP_TOKEN)
    return HttpClient(record.name, record.url, token, fleet.clock) if token else _bot_client(fleet, record)


def _bot_client(fleet: Fleet, record: ForgeRecord) -> HttpClient:
    token = fleet.config.secret(record.token_env, record.token_file)
    if not token:
        raise Refused(Kind.INVALID, f"There is no token for {record.name}: set {record.token_env} or {SETUP_TOKEN}.")
    return HttpClient(record.name, record.url, token, fleet.clock)


def _webhook_secret(fleet: Fleet, record: ForgeRecord) -> str:
    """The secret for a new hook; during a rotation, the first of two."""
    secret = fleet.config.secret(record.webhook_secret_env, record.webhook_secret_file)
    if not secret:
        raise Refused(Kind.INVALID, f"There is no webhook secret: set {record.webhook_secret_env}.")
    return (secrets_in(secret) or (secret,))[0]


def _print_faults(fleet: Fleet, record: ForgeRecord, where: str) -> None:
    """Print what would make the hook useless, as far as the bot's own token shows it."""
    found = examination.check(fleet, record, _bot_client(fleet, record), where)
    _print_findings(
        finding for finding in found if finding.state != examination.GOOD and not finding.about.endswith(": hook")
    )


def _print_findings(found: Iterable[examination.Finding]) -> None:
    """One finding below the other, and under each how to fix it."""
    print_paragraphs(
        (finding.state, f"{finding.about}: {finding.said}" + (f"\n-> {finding.mend}" if finding.mend else ""))
        for finding in found
    )


def _test_delivery(fleet: Fleet, record: ForgeRecord, where: str, hook: hooks.Hook) -> None:
    """Raises Unavailable when the test delivery does not arrive in time."""
    since = fleet.clock()
    hooks.send_test(_admin_client(fleet, record), where, hook)
    if not _wait_for_test(fleet, record.name, since):
        raise Unavailable(
            f"No test delivery arrived at {hook.url} within {TEST_DELIVERY_WAIT.total_seconds():.0f} s. If `fleet up` "
            "is running, look at the hook's recent deliveries on the forge. Most often [webhook] ALLOWED_HOST_LIST "
            "lacks this machine, or the hook has another secret (`fleet forge add --anew`)."
        )


def _wait_for_test(fleet: Fleet, forge_name: str, since: datetime) -> bool:
    while fleet.clock() < since + TEST_DELIVERY_WAIT:
        with fleet.engine.begin() as conn:
            if deliveries.has_test_since(conn, forge_name, since):
                return True
        time.sleep(PAUSE_SECS)
    return False


def _print_manual_steps(record: ForgeRecord, where: str, url: str) -> None:
    kind, page = ("Repository", where) if "/" in where else ("Organisation", f"org/{where}")
    rows = [
        ("page", f"{record.url.rstrip('/')}/{page}/settings/hooks"),
        ("type", "Forgejo"),
        ("target URL", url),
        ("method, content type", "POST, application/json"),
        ("secret", f"the value of {record.webhook_secret_env}; by default in FLEET_HOME/secrets/webhook-secret"),
        ("trigger on", "custom events: issues, comments, pull requests (all), push, create, delete, action runs"),
        ("active", "yes"),
    ]
    click.echo(f"Ask an admin of {where} to add this hook ({kind} settings, Webhooks):")
    print_table(("", ""), rows)

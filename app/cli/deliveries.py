"""`fleet deliveries`: lists the webhook deliveries that arrived, shows one, applies one again."""

import json

import click

from app.cli.connect import open_fleet
from app.cli.output import age, json_option, print_json, print_table
from app.domain.delivery import Delivery
from app.domain.errors import Kind, Refused
from app.domain.visible_text import printable
from app.ports import Fleet
from app.store import deliveries as store
from app.store.views import moment

STATUSES = (store.WAITING, "applied", "ignored", "refused")


@click.group()
def deliveries() -> None:
    """List webhook deliveries; apply one again."""


@deliveries.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only deliveries with this status.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most this many.")
@json_option
def list_(status: str | None, limit: int, json_: bool) -> None:
    """List deliveries, newest first."""
    fleet = open_fleet()
    with fleet.engine.begin() as conn:
        rows = store.list_deliveries(conn, status, limit)
    if json_:
        return print_json([_as_json(row) for row in rows])
    columns = ("", "since", "forge", "event", "status", "tries", "why")
    print_table(columns, [_delivery_row(fleet, row) for row in rows], "There are no such deliveries.")


@deliveries.command()
@click.argument("delivery")
@json_option
def show(delivery: str, json_: bool) -> None:
    """Show a delivery with its body.

    DELIVERY is its number here or the forge's id. The webhook's secret, which old forges write into the body, is
    masked.
    """
    fleet = open_fleet()
    row = _find(fleet, delivery)
    body = printable(fleet.mask.text(row.body.decode(errors="replace")))
    if json_:
        return print_json(_as_json(row) | {"body": body})
    print_table(("", ""), [(name, value) for name, value in _as_json(row).items() if value is not None])
    click.echo(_indent_json(body))


@deliveries.command()
@click.argument("delivery")
@json_option
def replay(delivery: str, json_: bool) -> None:
    """Apply a delivery again.

    This is safe: a delivery only tells us what to ask the forge for.
    """
    fleet = open_fleet()
    row = _find(fleet, delivery)
    with fleet.engine.begin() as conn:
        store.apply_again(conn, row.id, fleet.clock())
    fleet.nudge.soon()
    if json_:
        return print_json(_as_json(_find(fleet, str(row.id))))
    click.echo(f"delivery {row.id} will be applied again")


def _find(fleet: Fleet, key: str) -> Delivery:
    with fleet.engine.begin() as conn:
        row = store.find(conn, key)
    if row is None:
        raise Refused(Kind.UNKNOWN, f"There is no delivery {key!r}; `fleet deliveries list` shows the deliveries.")
    return row


def _as_json(row: Delivery) -> dict[str, object]:
    return {
        "id": row.id,
        "delivery_id": row.delivery_id,
        "forge": row.forge,
        "event": row.event,
        "status": row.result or store.WAITING,
        "why": row.why,
        "tries": row.tries,
        "received_at": moment(row.received_at),
        "applied_at": moment(row.applied_at),
        "due_at": moment(row.due_at) if row.applied_at is None else None,
        "size": row.size,
    }


def _delivery_row(fleet: Fleet, row: Delivery) -> tuple[object, ...]:
    shown = _as_json(row)
    since = age(str(shown["received_at"]), fleet.clock())
    return shown["id"], since, *(shown[name] for name in ("forge", "event", "status", "tries", "why"))


def _indent_json(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body

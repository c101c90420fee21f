"""`fleet deliveries`: the inbox: what came in, what became of it, and once more."""

import json
from typing import Any

import click

from app import wiring
from app.cli.output import ago, as_json, table
from app.domain.errors import Kind, Refused
from app.domain.visible_text import printable
from app.ports import Fleet
from app.store import deliveries as store
from app.store.tables import Row
from app.store.views import moment

RESULTS = (store.WAITING, "applied", "ignored", "refused")
json_option = click.option("--json", "json_", is_flag=True, help="For programs.")


@click.group()
def deliveries() -> None:
    """Look at the webhook deliveries that came in, and apply one again."""


@deliveries.command("list")
@click.option("--status", type=click.Choice(RESULTS), help="Only those that wait, or that ended so.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@json_option
def list_(status: str | None, limit: int, json_: bool) -> None:
    """Deliveries, newest first."""
    with _fleet().engine.begin() as conn:
        found = [_shown(row) for row in store.listed(conn, status, limit)]
    if json_:
        return as_json(found)
    columns = ("", "since", "forge", "event", "status", "tries", "why")
    rows = [(*(one[name] for name in ("id",)), *_short(one)) for one in found]
    table(columns, rows, none="There are no such deliveries.")


@deliveries.command()
@click.argument("delivery")
@json_option
def show(delivery: str, json_: bool) -> None:
    """One delivery, by our number or by the forge's id, with its body. Old forges write the hook's secret there, which
    is masked."""
    fleet = _fleet()
    row = _find(fleet, delivery)
    body = printable(fleet.mask.text(row["body"].decode(errors="replace")))
    if json_:
        return as_json(_shown(row) | {"body": body})
    table(("", ""), [(name, value) for name, value in _shown(row).items() if value is not None])
    click.echo(_pretty(body))


@deliveries.command()
@click.argument("delivery")
@json_option
def replay(delivery: str, json_: bool) -> None:
    """Have a delivery applied once more. It says where to look, so that does no harm."""
    fleet = _fleet()
    row = _find(fleet, delivery)
    with fleet.engine.begin() as conn:
        store.again(conn, row["id"], fleet.clock())
    fleet.nudge.soon()
    shown = _shown(_find(fleet, str(row["id"])))
    as_json(shown) if json_ else click.echo(f"delivery {row['id']} waits to be applied again")


def _find(fleet: Fleet, key: str) -> Row:
    with fleet.engine.begin() as conn:
        row = store.get(conn, key)
    if row is None:
        raise Refused(Kind.UNKNOWN, f"There is no delivery {key!r}; `fleet deliveries list` shows those there are.")
    return row


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "delivery_id": row["delivery_id"],
        "forge": row["forge"],
        "event": row["event"],
        "status": row["result"] or store.WAITING,
        "why": row["why"],
        "tries": row["tries"],
        "received_at": moment(row["received_at"]),
        "applied_at": moment(row["applied_at"]),
        "due_at": moment(row["due_at"]) if row["applied_at"] is None else None,
        "size": row["size"] if "size" in row else len(row["body"]),
    }


def _short(one: dict[str, Any]) -> tuple[Any, ...]:
    since = ago(one["received_at"], wiring.now())
    return (since, one["forge"], one["event"], one["status"], one["tries"], one["why"])


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body


def _fleet() -> Fleet:
    return wiring.fleet(connections=1)

"""`fleet agents`, `fleet enroll`: who comes to us for work, and who may."""

import json
from typing import Any

import click

from app import wiring
from app.cli.output import ago, as_json, table
from app.ports import Fleet
from app.services.agents import registry
from app.store import agents as rows
from app.store import views

json_option = click.option("--json", "json_", is_flag=True, help="For programs.")


@click.group()
def agents() -> None:
    """See the agents that pull work; revoke one, let it in again."""


@agents.command("list")
@json_option
def list_agents(json_: bool) -> None:
    """Who is there, what they can do, what they hold."""
    found = registry.listed(_fleet())
    if json_:
        return as_json(found)
    columns = ("agent", "status", "seen", "slots", "host", "can do", "holds")
    none = "No agent has registered; `fleet enroll create` lets one in."
    table(columns, [_line(one) for one in found], none=none)


@agents.command()
@click.argument("agent_id")
def revoke(agent_id: str) -> None:
    """Refuse an agent from now on; what it holds goes back to the queue."""
    back = registry.revoke(_fleet(), agent_id)
    click.echo(f"{agent_id} is revoked; {len(back)} tasks went back to the queue.")


@agents.command()
@click.argument("agent_id")
def restore(agent_id: str) -> None:
    """Let a revoked agent register again."""
    registry.restore(_fleet(), agent_id)
    click.echo(f"{agent_id} may register again.")


@click.group()
def enroll() -> None:
    """Make, list and revoke the tokens by which agents register."""


@enroll.command()
@click.argument("name")
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), help="How long it works; else until revoked.")
@json_option
def create(name: str, days: float | None, json_: bool) -> None:
    """A new enrolment token. It is shown this once."""
    token = registry.invite(_fleet(), name, days)
    if json_:
        return click.echo(json.dumps({"name": name, "token": token}))
    click.echo(token)
    click.echo("The agent takes it as FLEET_ENROLL_TOKEN or FLEET_ENROLL_TOKEN_FILE; it is not shown again.", err=True)


@enroll.command("list")
@json_option
def list_tokens(json_: bool) -> None:
    """The enrolment tokens by name, without the tokens."""
    fleet = _fleet()
    with fleet.engine.begin() as conn:
        found = [_invitation(fleet, row) for row in rows.invitations(conn)]
    if json_:
        return as_json(found)
    lines = [(one["name"], one["status"], one["uses"], one["used_at"], one["expires_at"]) for one in found]
    table(("name", "status", "uses", "last used", "works until"), lines, none="There are no enrolment tokens.")


@enroll.command("revoke")
@click.argument("name")
def revoke_token(name: str) -> None:
    """Revoke an enrolment token; the agents that used it stay."""
    registry.withdraw(_fleet(), name)
    click.echo(f"The enrolment token {name} works no longer.")


def _line(one: dict[str, Any]) -> tuple[Any, ...]:
    slots = f"{len(one['tasks'])}/{one['max_concurrency']}"
    status = "revoked" if one["revoked"] else one["status"]
    seen = ago(one["last_seen_at"], wiring.now())
    can, holds = ", ".join(one["capabilities"]), ", ".join(one["tasks"])
    return one["agent_id"], status, seen, slots, one["hostname"], can, holds


def _invitation(fleet: Fleet, row: Any) -> dict[str, Any]:
    over = row["expires_at"] is not None and row["expires_at"] <= fleet.clock()
    status = "revoked" if row["revoked_at"] else "expired" if over else "in force"
    moments = {name: views.moment(row[name]) for name in ("made_at", "expires_at", "used_at")}
    return {"name": row["name"], "status": status, "uses": row["uses"], **moments}


def _fleet() -> Fleet:
    return wiring.fleet(connections=1)

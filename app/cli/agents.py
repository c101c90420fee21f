"""`fleet agents`, `fleet enroll`: manage pull agents and the tokens they register with."""

from collections.abc import Mapping
from typing import Any

import click

from app.cli.connect import open_fleet
from app.cli.output import age, json_option, print_json, print_table
from app.domain.agent import EnrolmentToken
from app.ports import Fleet
from app.services.agents import registry
from app.store import agents as agent_rows
from app.store import views


@click.group()
def agents() -> None:
    """List agents; revoke and restore them."""


@agents.command("list")
@json_option
def list_agents(json_: bool) -> None:
    """List agents: their state, capabilities and tasks."""
    fleet = open_fleet()
    found = registry.list_agents(fleet)
    if json_:
        return print_json(found)
    columns = ("agent", "status", "seen", "slots", "host", "capabilities", "tasks")
    if_empty = "No agent has registered; `fleet enroll create` makes a token for one."
    print_table(columns, [_agent_row(fleet, agent) for agent in found], if_empty)


@agents.command()
@click.argument("agent_id")
def revoke(agent_id: str) -> None:
    """Reject an agent from now on; requeue its tasks."""
    requeued = registry.revoke(open_fleet(), agent_id)
    click.echo(f"{agent_id} is revoked; {len(requeued)} tasks went back to the queue.")


@agents.command()
@click.argument("agent_id")
def restore(agent_id: str) -> None:
    """Let a revoked agent register again."""
    registry.restore(open_fleet(), agent_id)
    click.echo(f"{agent_id} may register again.")


@click.group()
def enroll() -> None:
    """Create, list and revoke enrolment tokens."""


@enroll.command()
@click.argument("name")
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), help="Expires after this many days.")
@json_option
def create(name: str, days: float | None, json_: bool) -> None:
    """Create an enrolment token. It is shown only once."""
    token = registry.create_enrolment_token(open_fleet(), name, days)
    if json_:
        return print_json({"name": name, "token": token})
    click.echo(token)
    click.echo("Set it as FLEET_ENROLL_TOKEN or FLEET_ENROLL_TOKEN_FILE of the agent; it is not shown again.", err=True)


@enroll.command("list")
@json_option
def list_tokens(json_: bool) -> None:
    """List enrolment tokens by name, without the secrets."""
    fleet = open_fleet()
    with fleet.engine.begin() as conn:
        found = [_token_as_json(fleet, row) for row in agent_rows.enrolment_tokens(conn)]
    if json_:
        return print_json(found)
    lines = [(token["name"], token["status"], token["uses"], token["used_at"], token["expires_at"]) for token in found]
    print_table(("name", "status", "uses", "last used", "expires"), lines, "There are no enrolment tokens.")


@enroll.command("revoke")
@click.argument("name")
def revoke_token(name: str) -> None:
    """Revoke an enrolment token; agents that used it stay."""
    registry.revoke_enrolment_token(open_fleet(), name)
    click.echo(f"The enrolment token {name} is revoked.")


def _agent_row(fleet: Fleet, agent: Mapping[str, Any]) -> tuple[object, ...]:
    slots = f"{len(agent['tasks'])}/{agent['max_concurrency']}"
    status = "revoked" if agent["revoked"] else agent["status"]
    seen = age(agent["last_seen_at"], fleet.clock())
    capabilities, tasks = ", ".join(agent["capabilities"]), ", ".join(agent["tasks"])
    return agent["agent_id"], status, seen, slots, agent["hostname"], capabilities, tasks


def _token_as_json(fleet: Fleet, token: EnrolmentToken) -> dict[str, object]:
    moments = {name: views.moment(getattr(token, name)) for name in ("made_at", "expires_at", "used_at")}
    return {"name": token.name, "status": token.status(fleet.clock()), "uses": token.uses, **moments}

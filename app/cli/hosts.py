"""`fleet hosts`: lists, adds, tests, drains and removes hosts, the machines that the fleet reaches by SSH."""

import sys
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
from marshmallow import ValidationError

from app import wiring
from app.api.hosts import ShownHost, as_json
from app.cli.connect import open_fleet
from app.cli.output import age, json_option, print_json, print_table
from app.config.fleet_toml import DeclaredHost, DeclaredSlots, HostSchema, flat, jump_faults
from app.domain.errors import Kind, Refused
from app.domain.host import Address, Fitness, Host, Origin
from app.ports import Fleet
from app.services.dispatch import host_health
from app.store import hosts as host_rows
from app.store import runs

if TYPE_CHECKING:
    from workers.hosts.diagnose import Step

yes_option = click.option("--yes", is_flag=True, help="Pin the host's key without asking.")


@click.group()
def hosts() -> None:
    """List, add, test and drain hosts."""


@hosts.command("list")
@click.option("--label", help="Only hosts with this label.")
@json_option
def list_hosts(label: str | None, json_: bool) -> None:
    """List hosts: fitness, slots, load, free disk."""
    with open_fleet().engine.begin() as conn:
        found = [as_json(host) for host in host_rows.all_hosts(conn) if label is None or label in host.labels]
    if json_:
        return print_json(found)
    columns = ("host", "fitness", "since", "slots", "load", "free disk", "address", "why")
    print_table(columns, [_host_row(one) for one in found], "There are no hosts; `fleet hosts add` adds one.")


@hosts.command()
@click.argument("host_id")
@json_option
def show(host_id: str, json_: bool) -> None:
    """Show a host: fitness, reason, and the last probe."""
    with open_fleet().engine.begin() as conn:
        found = as_json(host_health.find(host_rows.all_hosts(conn), host_id))
    if json_:
        return print_json(found)
    plain = [(name, found[name]) for name in ("fitness", "why", "since", "hostname", "work_dir", "origin", "probed_at")]
    print_table(("", ""), [("labels", ", ".join(found["labels"])), *plain, *(found["probe"] or {}).items()])
    slots = [
        (one["agent_type"], f"{one['taken']}/{one['max_concurrency']}", ", ".join(one["capabilities"]),
         "not installed there" if one["missing"] else (found["probe"] or {"clis": {}})["clis"].get(one["agent_type"]))
        for one in found["slots"]
    ]  # fmt: skip
    print_table(("cli", "taken", "can do", "version"), slots)


@hosts.command()
@click.argument("host_id")
@click.argument("address")
@click.option("--user", "ssh_user", help="The SSH user.")
@click.option("--port", "ssh_port", default=22, show_default=True, type=click.IntRange(1, 65535), help="The SSH port.")
@click.option("--key", "ssh_key_path", help="Path of the private key on the workers' machines, or `agent`.")
@click.option("--jump", "proxy_jump", help="The HOST_ID of a jump host.")
@click.option("--work-dir", help="The folder for runs. [default: ~/.agent-fleet]")
@click.option("--slots", "slots", multiple=True, help="CLI=COUNT:CAPABILITY,CAPABILITY; repeatable.")
@click.option("--label", "labels", multiple=True, help="A label for people; repeatable.")
@click.option("--fingerprint", help="The SHA256 fingerprint that the host's key must have.")
@yes_option
@json_option
def add(slots: tuple[str, ...], fingerprint: str | None, yes: bool, json_: bool, **given: Any) -> None:
    """Add a host: pin its key and test it.

    ADDRESS is a name or an IP address; `localhost` is this machine, without SSH. For a HOST_ID that exists, all options
    are replaced: give each of them again.
    """
    fleet = open_fleet()
    one = _parse_host(given, slots)
    _check_addable(fleet, one)
    if one["hostname"] != "localhost":
        one["host_key"] = _confirm_key(fleet, one, fingerprint, yes)
    with fleet.engine.begin() as conn:
        host_rows.add_host(conn, one)
    _run_test(fleet, one["host_id"], json_)


@hosts.command()
@click.argument("host_id")
def remove(host_id: str) -> None:
    """Remove a host that was added by command and is idle."""
    with open_fleet().engine.begin() as conn:
        host = host_health.find(host_rows.all_hosts(conn), host_id)
        if host.origin is Origin.DECLARED:
            raise Refused(Kind.INVALID, f"{host_id} is declared in fleet.toml: take it out there, then `fleet apply`.")
        going = runs.open_on_host(conn, host_id)
        if going:
            raise Refused(Kind.INVALID, f"{host_id} has {len(going)} runs: `fleet hosts drain {host_id}` and wait.")
        host_rows.remove_host(conn, host_id)
    click.echo(f"{host_id} is removed; its work folder stays on the machine.")


@hosts.command()
@click.argument("host_id")
@json_option
def test(host_id: str, json_: bool) -> None:
    """Test a host step by step.

    The steps are connection, host key, login, Python, git, disk, CLIs. The exit code is 1 if one fails.
    """
    _run_test(open_fleet(), host_id, json_)


@hosts.command()
@click.argument("host_id")
@json_option
def drain(host_id: str, json_: bool) -> None:
    """Give a host no new work; its runs go on."""
    _print_fitness(host_health.set_fitness(open_fleet(), host_id, Fitness.DRAINING, "drained by an operator"), json_)


@hosts.command()
@click.argument("host_id")
@json_option
def resume(host_id: str, json_: bool) -> None:
    """Let a host work again once a probe finds it fit.

    Also ends a quarantine.
    """
    _print_fitness(host_health.set_fitness(open_fleet(), host_id, Fitness.UNKNOWN, None), json_)


def _parse_host(given: Mapping[str, Any], slots: tuple[str, ...]) -> DeclaredHost:
    wanted = {name: value for name, value in given.items() if value is not None}
    wanted |= {"hostname": wanted.pop("address"), "agents": [_parse_slots(text) for text in slots]}
    try:
        found: DeclaredHost = HostSchema().load(wanted | {"labels": list(given["labels"])})
    except ValidationError as error:
        faults = "; ".join(f"{where}: {what}" for where, what in flat(error.messages))
        raise Refused(Kind.INVALID, f"The host cannot be added: {faults}") from error
    return found


def _parse_slots(text: str) -> DeclaredSlots:
    """`codex=2:rust,python` as fleet.toml would say it."""
    room, _, can = text.partition(":")
    kind, _, count = room.partition("=")
    if count and not count.isdigit():
        raise click.BadParameter(f"{text!r} must look like codex=2:rust,python", param_hint="--slots")
    return {"agent_type": kind, "max_concurrency": int(count or 1), "capabilities": [c for c in can.split(",") if c]}


def _check_addable(fleet: Fleet, one: DeclaredHost) -> None:
    with fleet.engine.begin() as conn:
        known = host_rows.all_hosts(conn)
    if any(host.host_id == one["host_id"] and host.origin is Origin.DECLARED for host in known):
        raise Refused(Kind.INVALID, f"{one['host_id']} is declared in fleet.toml: change it there, then `fleet apply`.")
    over = {host.host_id: host.proxy_jump for host in known} | {one["host_id"]: one["proxy_jump"]}
    faults = [fault for fault in jump_faults(over) if f"hosts: {one['host_id']} " in fault]
    if faults:
        raise Refused(Kind.INVALID, faults[0])


def _confirm_key(fleet: Fleet, one: DeclaredHost, fingerprint: str | None, yes: bool) -> str:
    """The key that the host shows, once an operator has confirmed it."""
    from workers.errors import Unreachable
    from workers.hosts import diagnose

    try:
        shown = diagnose.host_key(_address(fleet, one))
    except Unreachable as why:
        raise Refused(Kind.UNAVAILABLE, f"{one['host_id']} cannot be asked for its key: {why}.") from why
    click.echo(f"{one['host_id']} shows the host key {shown.fingerprint}", err=True)
    if fingerprint is not None and fingerprint != shown.fingerprint:
        raise Refused(Kind.INVALID, f"That is not {fingerprint}: nothing was added. Find out who answers there.")
    if fingerprint is None and not yes:
        click.confirm("Is that what `ssh-keygen -lf` says on the machine itself?", abort=True, err=True)
    return shown.line


def _address(fleet: Fleet, one: DeclaredHost) -> Address:
    with fleet.engine.begin() as conn:
        jump = host_rows.machine(conn, one["proxy_jump"]) if one["proxy_jump"] else None
    return Address(
        one["hostname"], one["ssh_port"], one["ssh_user"], one["ssh_key_path"], jump=jump.address if jump else None
    )


def _run_test(fleet: Fleet, host_id: str, json_: bool) -> None:
    """Diagnose a host, and save the result. Exits with 1 if a step is not fine."""
    from workers.hosts import diagnose
    from workers.worker import host_client

    with fleet.engine.begin() as conn:
        host = host_health.find(host_rows.all_hosts(conn), host_id)
        clis = host_rows.clis_on(conn, host_id)
    wanted = diagnose.Wanted(clis, fleet.config.least_disk_mb << 20)
    steps: list[Step] = []
    with closing(host_client(fleet)) as client:
        for step in diagnose.diagnose(client, host, wanted):
            steps.append(step)
            if not json_:
                click.echo(f"{'ok  ' if step.is_fine else 'FAIL'} {step.name:12} {step.sentence}")
    _save(fleet, host, steps[-1])
    is_fine = all(step.is_fine for step in steps)
    if json_:
        print_json({"host_id": host_id, "fine": is_fine, "steps": list(map(_step_json, steps))})
    if not is_fine:
        sys.exit(1)


def _save(fleet: Fleet, host: Host, last: "Step") -> None:
    """Save what the last step of a diagnosis says of the host's fitness."""
    if last.probe:
        host_health.record_probe(fleet, host.host_id, last.probe)
        fleet.nudge.soon()
    elif last.key and host.address.host_keys:
        host_health.quarantine(fleet, host.host_id, f"host key changed: {last.sentence}")
    else:
        host_health.record_unreachable(fleet, host.host_id, last.sentence)


def _step_json(step: "Step") -> dict[str, object]:
    shown: dict[str, object] = {"step": step.name, "fine": step.is_fine, "sentence": step.sentence}
    if step.key:
        shown |= {"fingerprint": step.key.fingerprint} | ({} if step.is_fine else {"host_key": step.key.line})
    return shown | ({"figures": step.probe.as_json()} if step.probe else {})


def _print_fitness(host: Any, json_: bool) -> None:
    print_json(as_json(host)) if json_ else click.echo(f"{host.host_id} is {host.fitness}")


def _host_row(one: ShownHost) -> tuple[Any, ...]:
    probe = one["probe"] or {}
    slots = ", ".join(f"{s['agent_type']} {s['taken']}/{s['max_concurrency']}" for s in one["slots"])
    disk = f"{probe['disk_free'] >> 30} GB" if probe.get("disk_free") else None
    since = age(one["since"], wiring.now()) if one["since"] else None
    return (
        one["host_id"], one["fitness"], since, slots, probe.get("load_per_cpu"), disk,
        one["hostname"], one["why"],
    )  # fmt: skip

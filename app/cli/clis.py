"""`fleet clis`: lists coding CLIs, shows their command lines, parses their output, shows and lifts their limits."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from app.cli.connect import open_fleet
from app.cli.output import json_option, print_json
from app.clis import catalog, command_line, outcomes
from app.clis.parser import Setting
from app.clis.template import Table
from app.config.settings import ConfigError
from app.domain.errors import Kind, Refused
from app.domain.run import Usage
from workers.supervisor.versions import flags_for

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")
PIECE = 1 << 16
OPTIONAL_FIELDS = ("timeout_secs", "silence_secs", "credential", "failover", "model")
LISTED_FIELDS = ("argv", "parser", "prompt", "version", "timeout_secs", "silence_secs")
PROMPT_PLACES = {"stdin": "on standard input", "file": "in {prompt_file}"}
MOMENT = "an RFC 3339 time like 2026-11-24T21:00:00Z"


@click.group()
def clis() -> None:
    """List coding CLIs, their command lines and limits."""


@clis.command("list")
@json_option
def list_(json_: bool) -> None:
    """List every preset, and the CLIs that fleet.toml declares."""
    declared = _declared()
    sources = dict.fromkeys(catalog.presets(), "preset") | dict.fromkeys(declared, "fleet.toml")
    rows = [_listed(name, source, declared.get(name)) for name, source in sorted(sources.items())]
    if json_:
        return print_json(rows)
    for row in rows:
        click.echo(f"{row['name']:<12} {row['source']:<11} {row['parser']:<14} {' '.join(row['argv'])}")


@clis.command()
@click.argument("name")
@click.option("--host", help="Apply this host's overrides.")
@click.option("--repository", help="Apply the overrides of the rule for owner/name.")
@click.option("--version", "version_", help="For this version of the CLI; by default, for an unknown one.")
@click.option("--resume", metavar="SESSION", help="For resuming this session.")
def show(name: str, host: str | None, repository: str | None, version_: str | None, resume: str | None) -> None:
    """Print a CLI's command line, environment and settings as JSON.

    Nothing is run.
    """
    template = catalog.template_of(name, _declared().get(name), _overrides(name, host, repository))
    run = command_line.fill_template(template, resume)
    print_json({
        "cli": name,
        "argv": flags_for(run["argv"], run["flags"], version_),
        "env": run["env"],
        "prompt": PROMPT_PLACES[run["prompt_via"]],
        "parser": template.parser,
        **{field: value for field in OPTIONAL_FIELDS if (value := getattr(template, field))},
        "version": run["version"],
        "flags_of_other_versions": [rule for rule in run["flags"] if not flags_for([], [rule], version_)],
    })  # fmt: skip


@clis.command()
@json_option
def limits(json_: bool) -> None:
    """List credentials at or near a usage limit, or refused."""
    from app.services.dispatch import credentials

    found = _query(credentials.limits)
    if json_:
        return print_json(found)
    for row in found:
        warning = f"; {row['warning']}" if row["warning"] else ""
        click.echo(f"{row['credential']:<16} {_describe_limit(row)}{warning}")
    if not found:
        click.echo("No credential reached a limit or was refused.")


@clis.command("open")
@click.argument("credential")
def open_(credential: str) -> None:
    """Open a closed credential: its tasks resume at once.

    Use it when a usage limit is over, or when a refused login works again.
    """
    from app.services.dispatch import credentials

    if not credentials.reopen(open_fleet(), credential):
        raise Refused(Kind.INVALID, f"{credential!r} is not closed; `fleet clis limits` lists the closed ones.")
    click.echo(f"{credential} is open")


@clis.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@click.option("--exit-code", required=True, type=int, help="The CLI's exit code; -N or 128+N for a signal.")
@click.option("--stderr", "stderr_file", type=click.File("rb"), help="A file with its standard error.")
@click.option("--now", "moment", help=f"When it was printed: {MOMENT}.")
@click.option("--before", help='The session\'s earlier usage: JSON like {"input_tokens": 1200}.')
def parse(
    name: str, file: BinaryIO, exit_code: int, stderr_file: BinaryIO | None, moment: str | None, before: str | None
) -> None:
    """Parse a CLI's output in FILE; print the outcome as JSON.

    NAME is a CLI or a parser. FILE may be `-` for standard input.
    """
    parser_name, reading = _parser_of(name)
    parser = catalog.make_parser(parser_name, Setting(_parse_moment(moment), _parse_usage(before), reading=reading))
    while data := file.read(PIECE):
        parser.feed(data)
    outcome = parser.finish(exit_code, stderr_file.read() if stderr_file else b"")
    print_json(outcomes.sanitize(outcome).as_json())


def _describe_limit(row: Mapping[str, Any]) -> str:
    if not row["closed_until"]:
        return "open"
    if row["refused"]:
        return f"refused, closed until you open it or a run succeeds ({row['closed_until']}): {row['why']}"
    return f"closed until {row['closed_until']}: {row['why']}"


def _listed(name: str, source: str, declared: Table | None) -> dict[str, Any]:
    template = catalog.template_of(name, declared)
    fields = {field: getattr(template, field) or None for field in LISTED_FIELDS}
    return {"name": name, "source": source, "resumes": bool(template.resume), **fields}


def _parser_of(name: str) -> tuple[str, Table]:
    """The parser of a CLI and its settings. A preset needs no database; it wins over a declared CLI of its name."""
    if name in catalog.parsers():
        return name, {}
    template = catalog.template_of(name, None if name in catalog.presets() else _declared().get(name))
    return template.parser, template.reading


def _declared() -> dict[str, Table]:
    """The templates that fleet.toml declares, by name; none while the database does not answer."""
    from app.store import fleet_config

    try:
        return _query(fleet_config.cli_templates)
    except Refused:
        return {}


def _overrides(name: str, host: str | None, repository: str | None) -> list[Table]:
    """The overrides of a repository's rule and of a host. Raises Refused for an unknown host."""
    from app.store import fleet_config, hosts

    def find(conn: "Connection") -> list[Table]:
        row = hosts.machine(conn, host) if host else None
        if host and row is None:
            raise Refused(Kind.UNKNOWN, f"There is no host {host!r}; `fleet hosts list` shows the hosts.")
        forges = fleet_config.all_forges(conn) if repository else []
        rules = [fleet_config.rule_for(conn, forge.name, repository or "") for forge in forges]
        return list(fleet_config.cli_changes(name, next((rule for rule in rules if rule), None), row))

    return _query(find) if host or repository else []


def _query(question: "Callable[[Connection], T]") -> T:
    """Raises Refused when there is no database, or when it does not answer."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with open_fleet().engine.begin() as conn:
            return question(conn)
    except (SQLAlchemyError, ConfigError) as error:
        raise Refused(Kind.UNAVAILABLE, f"The database does not answer ({str(error).splitlines()[0]}).") from error


def _parse_moment(given: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(given) if given else datetime.now(UTC)
    except ValueError:
        raise Refused(Kind.INVALID, f"--now {given!r} is not {MOMENT}.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_usage(given: str | None) -> Usage:
    try:
        return outcomes.sanitize_usage(Usage(**(json.loads(given) if given else {})))
    except (ValueError, TypeError):
        raise Refused(Kind.INVALID, f'--before {given!r} is not JSON like {{"input_tokens": 1200}}.') from None

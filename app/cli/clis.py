"""`fleet clis`: which CLIs there are, what would be run, what an output amounts to. A program of its own."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import click
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app import wiring
from app.clis import catalog, command_line, outcomes
from app.clis.parser import Setting
from app.config.settings import ConfigError
from app.domain.errors import Kind, Refused
from app.domain.run import Usage
from app.services.dispatch import credentials
from app.store import fleet_config, hosts
from workers.supervisor.versions import flags_for

PIECE = 1 << 16
SHOWN = ("timeout_secs", "silence_secs", "credential", "failover", "model")
MOMENT = "an RFC 3339 moment like 2026-11-24T21:00:00Z"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def clis() -> None:
    """The coding CLIs: which there are, what would be run, what an output amounts to."""


@clis.command("list")
@click.option("--json", "json_", is_flag=True, help="For programs.")
def list_(json_: bool) -> None:
    """Every preset, and what fleet.toml declares."""
    names = dict.fromkeys(catalog.presets(), "preset") | dict.fromkeys(_declared(), "fleet.toml")
    rows = [_row(name, source) for name, source in sorted(names.items())]
    if json_:
        return click.echo(json.dumps(rows, indent=2))
    for row in rows:
        click.echo(f"{row['name']:<12} {row['source']:<11} {row['parser']:<14} {' '.join(row['argv'])}")
    return None


@clis.command()
@click.argument("name")
@click.option("--host", help="With this host's overrides.")
@click.option("--repository", help="With the overrides of the rule for owner/name.")
@click.option("--version", "version_", help="As for this version of the CLI; without it, as for one nobody knows.")
@click.option("--resume", metavar="SESSION", help="As for going on with this session.")
def show(name: str, host: str | None, repository: str | None, version_: str | None, resume: str | None) -> None:
    """What would be run, as JSON: argv word by word, environment, how the prompt goes in. Nothing is run."""
    template = catalog.template_of(name, _declared().get(name), _overrides(name, host, repository))
    run = command_line.fill_template(template, resume)
    shown = {
        "cli": name,
        "argv": flags_for(run["argv"], run["flags"], version_),
        "env": run["env"],
        "prompt": {"stdin": "on standard input", "file": "in {prompt_file}"}[run["prompt_via"]],
        "parser": template.parser,
        **{word: value for word in SHOWN if (value := getattr(template, word))},
        "version": run["version"],
        "flags_of_other_versions": [rule for rule in run["flags"] if not flags_for([], [rule], version_)],
    }
    click.echo(json.dumps(shown, indent=2))


@clis.command()
@click.option("--json", "json_", is_flag=True, help="For programs.")
def limits(json_: bool) -> None:
    """Every credential that met a limit, is near one, or was refused."""
    found: list[dict[str, Any]] = []
    _ask(lambda conn: found.extend(credentials.limits(conn)), needed=True)
    if json_:
        return click.echo(json.dumps(found, indent=2))
    for row in found:
        click.echo(f"{row['credential']:<16} {_state(row)}" + (f"; {row['warning']}" if row["warning"] else ""))
    return None if found else click.echo("No credential met a limit or was refused.")


@clis.command("open")
@click.argument("credential")
def open_(credential: str) -> None:
    """Say that a credential's limit is over, or its login good again: its tasks go on at once."""
    if not credentials.reopen(wiring.fleet(connections=1), credential):
        raise Refused(Kind.INVALID, f"{credential!r} is not closed; `fleet clis limits` shows those that are.")
    click.echo(f"{credential} is open")


@clis.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@click.option("--exit-code", required=True, type=int, help="How the CLI ended; -N or 128+N for a signal.")
@click.option("--stderr", "stderr_file", type=click.File("rb"), help="What it printed on standard error.")
@click.option("--now", "moment", help="When it was printed, for times without a date: " + MOMENT)
@click.option("--before", help='What the session had used before: JSON like {"input_tokens": 1200}.')
def parse(
    name: str, file: BinaryIO, exit_code: int, stderr_file: BinaryIO | None, moment: str | None, before: str | None
) -> None:
    """What an output (`-`: standard input) amounts to, as JSON. NAME is a CLI or a parser."""
    parser, reading = _reading(name)
    reader = catalog.make_parser(parser, Setting(_moment(moment), _usage(before), reading=reading))
    while data := file.read(PIECE):
        reader.feed(data)
    outcome = reader.finish(exit_code, stderr_file.read() if stderr_file else b"")
    click.echo(json.dumps(outcomes.sanitize(outcome).as_json(), indent=2))


def _state(row: Mapping[str, Any]) -> str:
    if not row["closed_until"]:
        return "open"
    if row["refused"]:
        return f"refused, closed until you open it or a run gets through ({row['closed_until']}): {row['why']}"
    return f"closed until {row['closed_until']}: {row['why']}"


def _row(name: str, source: str) -> dict[str, Any]:
    template = catalog.template_of(name, _declared().get(name))
    shown = ("argv", "parser", "prompt", "version", "timeout_secs", "silence_secs")
    return {"name": name, "source": source, "resumes": bool(template.resume)} | {
        word: getattr(template, word) or None for word in shown
    }


def _reading(name: str) -> tuple[str, Mapping[str, Any]]:
    """The parser that a name means, and how it is set. A preset's name wins over the database, which may be away."""
    if name in catalog.parsers():
        return name, {}
    template = catalog.template_of(name, None if name in catalog.presets() else _declared().get(name))
    return template.parser, template.reading


def _declared() -> dict[str, Mapping[str, Any]]:
    """What fleet.toml declared, as far as the database is there to say."""
    found: dict[str, Mapping[str, Any]] = {}
    _ask(lambda conn: found.update({row["name"]: row["template"] for row in fleet_config.all_clis(conn)}))
    return found


def _overrides(name: str, host: str | None, repository: str | None) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []

    def look(conn: Connection) -> None:
        row = hosts.host(conn, host) if host else None
        if host and row is None:
            raise Refused(Kind.UNKNOWN, f"There is no host {host!r}; `fleet hosts list` shows those there are.")
        rules = (
            [fleet_config.rule_for(conn, forge["name"], repository) for forge in fleet_config.all_forges(conn)]
            if repository
            else []
        )
        found.extend(fleet_config.cli_changes(name, next((rule for rule in rules if rule), None), row))

    if host or repository:
        _ask(look, needed=True)
    return found


def _ask(question: Any, needed: bool = False) -> None:
    try:
        engine = wiring.fleet(connections=1).engine
        with engine.begin() as conn:
            question(conn)
    except (SQLAlchemyError, ConfigError) as error:
        if needed:
            raise Refused(Kind.UNAVAILABLE, f"The database does not answer ({str(error).splitlines()[0]}).") from error


def _moment(given: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(given) if given else datetime.now(UTC)
    except ValueError:
        raise Refused(Kind.INVALID, f"--now {given!r} is not {MOMENT}.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _usage(given: str | None) -> Usage:
    try:
        told = json.loads(given) if given else {}
        return outcomes.sanitize_usage(Usage(**told))
    except (ValueError, TypeError):
        raise Refused(Kind.INVALID, f'--before {given!r} is not JSON like {{"input_tokens": 1200}}.') from None


if __name__ == "__main__":
    try:
        clis(prog_name="fleet clis", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (Refused, OSError) as error:
        sys.exit(f"fleet: {error}")

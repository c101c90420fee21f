"""Runs the `fleet` command: finds each subcommand, groups them in the help, and turns errors into exit codes."""

import sys
from dataclasses import dataclass
from importlib import import_module

import click

from app.config.settings import ConfigError
from app.domain.errors import Refused


@dataclass(frozen=True)
class Command:
    """Where a subcommand is defined, below `app.cli`, and its line in `fleet --help`."""

    module: str
    help: str


SECTIONS = {
    "Run": {
        "up": Command("up", "Start the whole fleet on this machine, until Ctrl-C."),
        "demo": Command("demo.command", "Show one issue become a merged pull request."),
    },
    "Look": {
        "task": Command("tasks", "List and show tasks; create, retry and cancel them."),
        "why": Command("tasks", "Explain why a task is where it is."),
        "logs": Command("logs", "Print what the CLI of a task prints."),
        "prompt": Command("prompt", "Print the prompt of a task's next run."),
        "receipt": Command("receipt", "Show and verify signed receipts of finished tasks."),
        "deliveries": Command("deliveries", "List webhook deliveries; apply one again."),
        "replay": Command("tasks", "Check that the tasks match their events."),
    },
    "Set up": {
        "apply": Command("config", "Write what fleet.toml declares to the database."),
        "config": Command("config", "Show the settings in force, secrets masked."),
        "migrate": Command("config", "Upgrade the database schema to this version."),
        "hosts": Command("hosts", "List, add, test and drain hosts."),
        "forge": Command("forge", "Create webhooks on a forge and test them."),
        "clis": Command("clis", "List coding CLIs, their command lines and limits."),
        "doctor": Command("forge", "Find faults in the setup of forges and webhooks."),
    },
    "Agents": {
        "agent": Command("agent", "Run an agent that pulls work to this machine."),
        "agents": Command("agents", "List agents; revoke and restore them."),
        "enroll": Command("agents", "Create, list and revoke enrolment tokens."),
    },
    "Develop": {
        "test": Command("test", "Run the tests."),
        "bench": Command("bench", "Run benchmarks."),
        "docs": Command("docs", "Write the documentation pages made from code."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


class Commands(click.Group):
    """Imports a subcommand's module only when it is called: some import slow libraries."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"app.cli.{COMMANDS[name].module}"), name)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of commands below the other, from the table alone."""
        widest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), command.help) for name, command in commands.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def fleet() -> None:
    """agent-fleet: turns Forgejo issues into merged pull requests.

    `fleet COMMAND --help` explains one command.
    """


def main() -> None:
    try:
        fleet(prog_name="fleet", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ConfigError, Refused) as error:
        _exit_with(str(error))
    except Exception as error:
        if not _is_database_error(error):
            raise
        cause = str(getattr(error, "orig", error)).strip().splitlines()[0]
        _exit_with(f"The database does not answer ({cause}). Start the fleet with `fleet up`, or set DATABASE_URL.")


def _is_database_error(error: Exception) -> bool:
    """Looks in `sys.modules`, since importing SQLAlchemy takes longer than most commands."""
    exc = sys.modules.get("sqlalchemy.exc")
    return exc is not None and isinstance(error, exc.OperationalError)


def _exit_with(message: str) -> None:
    for line in message.splitlines():
        click.echo(f"fleet: {line}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()

"""The commands, and the one place where an error becomes a sentence and an exit code."""

import sys
from importlib import import_module

import click

from app.config.settings import ConfigError
from app.domain.errors import Refused

COMMANDS = {
    "up": "up", "demo": "demo.command", "test": "test", "bench": "bench",
    "apply": "config", "config": "config", "migrate": "config",
    "task": "tasks", "why": "tasks", "replay": "tasks", "logs": "logs", "prompt": "prompt", "receipt": "receipt",
    "agent": "agent", "agents": "agents", "enroll": "agents", "hosts": "hosts", "clis": "clis",
    "deliveries": "deliveries", "forge": "forge", "doctor": "forge", "docs": "docs",
}  # fmt: skip


class Commands(click.Group):
    """Each command by the name of its room, which is entered when it is called: nobody waits for others' libraries."""

    def list_commands(self, _: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        found: click.Command | None = None
        if name in COMMANDS:
            found = getattr(import_module(f"app.cli.{COMMANDS[name]}"), name)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def fleet() -> None:
    """agent-fleet: Forgejo issues in, merged pull requests out."""


def main() -> None:
    try:
        fleet(prog_name="fleet", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ConfigError, Refused) as error:
        _stop(str(error))
    except Exception as error:
        if not _is_of_the_database(error):
            raise
        why = str(getattr(error, "orig", error)).strip().splitlines()[0]
        _stop(f"The database does not answer ({why}). Start the fleet with `fleet up`, or set DATABASE_URL.")


def _is_of_the_database(error: Exception) -> bool:
    """Asked of the library only if it was needed: to import it takes longer than most commands."""
    exc = sys.modules.get("sqlalchemy.exc")
    return exc is not None and isinstance(error, exc.OperationalError)


def _stop(sentence: str) -> None:
    for line in sentence.splitlines():
        click.echo(f"fleet: {line}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()

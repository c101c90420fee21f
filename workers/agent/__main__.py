"""Command line of `fleet agent`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from app.config.settings import ConfigError
from workers.agent import settings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", required=True, help="Address of the fleet, such as https://fleet.example.org.")
@click.option("--capability", "capabilities", multiple=True, help="What this machine can do; repeat for each.")
@click.option("--cli", required=True, help="CLI that does the work: codex, or one of --clis.")
@click.option(
    "--slots", type=click.IntRange(1, 1000), default=1, show_default=True, help="Most tasks at the same time."
)
@click.option("--agent-id", help="Name of this agent; generated and kept by default.")
@click.option("--state", type=click.Path(path_type=Path), help="Directory of the agent's state.")
@click.option("--clis", type=click.Path(path_type=Path), help="A fleet.toml with [clis] and [prices] to use here.")
def agent(**given: Any) -> None:
    """Run an agent that pulls work to this machine.

    The enrolment token is read from FLEET_ENROLL_TOKEN, or from the file named by FLEET_ENROLL_TOKEN_FILE. The token
    for fetching and pushing is read from FLEET_FORGE_TOKEN or FLEET_FORGE_TOKEN_FILE, if the repositories need one.

    The first SIGTERM drains: held tasks are finished. The second one stops at once.
    """
    code, why = _run(settings.read(os.environ, **given))
    if why:
        click.echo(f"fleet agent: {why}", err=True)
    sys.stderr.flush()
    os._exit(code)  # does not wait for threads that wait for the network


def _run(read: settings.Settings) -> tuple[int, str]:
    """Run the agent; returns its exit code and why the fleet refuses it.

    structlog and httpx import rich if it is installed: 4 MB for coloured consoles, which the agent does not have.
    """
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from workers.agent.agent import Agent  # noqa: PLC0415 - after rich is hidden, and not for --help
    from workers.agent.state_dir import StateDir  # noqa: PLC0415

    state = StateDir(read.state)
    state.open()
    agent = Agent(read, state)
    return agent.run(), agent.why


def main() -> None:
    try:
        agent(prog_name="fleet agent", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as wrong:
        for fault in wrong.faults:
            click.echo(f"fleet agent: {fault}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

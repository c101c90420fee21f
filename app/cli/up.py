"""`fleet up`: the whole system in one command, on embedded servers unless others are named."""

import os

import click

from app.cli.demo.command import look_around
from app.cli.local.launcher import running
from app.cli.local.process_manager import ProcessManager
from app.config import settings


@click.command()
@click.option(
    "--demo",
    "with_demo",
    is_flag=True,
    help="Also start a small forge with a repository, and a host, to look around.",
)
def up(with_demo: bool) -> None:
    """Start everything and keep it running until Ctrl-C."""
    if with_demo:
        return look_around()
    environ = dict(os.environ)
    with ProcessManager() as manager, running(manager, environ, quiet=False) as config:
        click.echo(f"fleet: up at {config.public_url} with its data in {config.home}", err=True)
        click.echo(
            f"fleet: the operator token is in {settings.secret_path(config.home, 'FLEET_OPERATOR_TOKEN')}",
            err=True,
        )
        if config.fleet_toml is None:
            click.echo("fleet: nothing is declared yet: write a fleet.toml, then `fleet apply fleet.toml`", err=True)
        manager.run_until_stopped()

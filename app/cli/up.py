"""`fleet up`: starts the whole fleet on this machine and keeps it running."""

import os

import click


@click.command()
@click.option("--demo", "with_demo", is_flag=True, help="Also start a small forge with a repository, to look around.")
def up(with_demo: bool) -> None:
    """Start the whole fleet on this machine, until Ctrl-C.

    Postgres and Valkey are embedded unless DATABASE_URL and REDIS_URL name servers.
    """
    if with_demo:
        from app.cli.demo.command import run_for_visitors

        return run_for_visitors()
    _run()


def _run() -> None:
    from app.cli.local.launcher import running
    from app.cli.local.process_manager import ProcessManager
    from app.config import settings

    with ProcessManager() as manager, running(manager, dict(os.environ), quiet=False) as config:
        token = settings.secret_path(config.home, "FLEET_OPERATOR_TOKEN")
        click.echo(f"fleet: running at {config.public_url}; data in {config.home}", err=True)
        click.echo(f"fleet: the operator token is in {token}", err=True)
        if config.fleet_toml is None:
            click.echo("fleet: nothing is declared yet: write a fleet.toml, then `fleet apply fleet.toml`", err=True)
        manager.run_until_stopped()

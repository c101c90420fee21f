"""`fleet agent`: the reference agent, in a process of its own that signals reach."""

import os
import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> None:
    """Come to a fleet for work and do it on this machine (`fleet agent --help`)."""
    os.execv(sys.executable, [sys.executable, "-m", "workers.agent", *arguments])  # noqa: S606 - no shell in between

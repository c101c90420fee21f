"""`fleet clis`: hands over to the workers' own program, for `app` does not import them."""

import os
import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def clis(words: tuple[str, ...]) -> None:
    """List the coding CLIs, show what would be run, parse an output."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "workers.clis", *words])  # noqa: S606 - our own program

"""`fleet test`: runs the tests, in parallel and in random order."""

import os
import subprocess
import sys
from pathlib import Path

import click

TOP = Path(__file__).parents[2]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(pytest_arguments: tuple[str, ...]) -> None:
    """Run the tests.

    Arguments go to pytest.
    """
    processes = str(min(6, (os.cpu_count() or 1) + 2))  # journeys wait more than they compute
    argv = [sys.executable, "-m", "pytest", *(pytest_arguments or ("-n", processes, "-q"))]
    sys.exit(subprocess.run(argv, cwd=TOP, check=False).returncode)

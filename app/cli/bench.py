"""`fleet bench`: runs benchmarks that compare two variants side by side; prints one JSON line per figure."""

import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import click

TOP = Path(__file__).parents[2]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[NAMES]... [OPTIONS]...")
def bench(words: tuple[str, ...]) -> None:
    """Run benchmarks.

    NAMES chooses some of them; by default all run. There are agent_start, cold, dequeue, idle, journey, reconcile,
    repository, ssh, webhooks. OPTIONS go to the benchmark: `fleet bench ssh --hosts 50 --runs 500`.
    """
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    known = sorted(path.stem for path in (TOP / "bench").glob("[a-z]*.py") if path.stem != "figures")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.UsageError(f"There is no benchmark {', '.join(unknown)}; there are {', '.join(known)}.")
    for name in names or known:
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *words[len(names) :]], cwd=TOP, check=False)
        if done.returncode:
            sys.exit(done.returncode)

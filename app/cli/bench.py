"""`fleet bench`: figures as ratios, taken side by side in one run; one JSON line a figure."""

import subprocess
import sys
from pathlib import Path

import click

TOP = Path(__file__).parents[2]


@click.command()
@click.argument("names", nargs=-1)
def bench(names: tuple[str, ...]) -> None:
    """Run the benchmarks NAMES (all of them without any): cold, idle, journey, webhooks."""
    known = sorted(path.stem for path in (TOP / "bench").glob("[a-z]*.py") if path.stem != "figures")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.UsageError(f"There is no benchmark {', '.join(unknown)}; there are {', '.join(known)}.")
    for name in names or known:
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=TOP, check=False)
        if done.returncode:
            sys.exit(done.returncode)

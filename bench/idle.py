"""idle: the proportional memory of each process of an idle fleet."""

import time
from pathlib import Path

import psutil

from app.cli.demo.stage import stage
from bench.figures import figure

IDLE_SECS = 60


def main() -> None:
    with stage() as set_:
        time.sleep(IDLE_SECS)
        total = 0.0
        for child in set_.manager.children:
            if child.process is not None and child.name != "forge":
                family = [
                    psutil.Process(child.process.pid),
                    *psutil.Process(child.process.pid).children(recursive=True),
                ]
                used = sum(_proportional(process.pid) for process in family)
                total += used
                figure(f"idle: {child.name}", used, "MB", runs=len(family))
        manager = _proportional(psutil.Process().pid)
        figure("idle: fleet up", manager, "MB")
        figure("idle: everything", total + manager, "MB", against=450)


def _proportional(pid: int) -> float:
    """A process's proportional set size in MB: shared pages are shared out."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()

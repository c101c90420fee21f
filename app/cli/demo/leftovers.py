"""Runs on this machine, from outside the database: how the demo ends what it started."""

import json
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_SECS = 10.0


def end_local_runs(home: Path) -> None:
    """Cancel every run below `home` that has no result yet, and wait until each has one and its supervisor is gone: it
    may still be packing a mirror, which it would make anew where somebody took it away."""
    supervisor = next((home / "bin").glob("*.py"), None) if (home / "bin").is_dir() else None
    going = [run for run in home.glob("runs/*/*") if not (run / "result.json").exists()]
    if supervisor is None:
        return
    for run in going:
        request = {"home": str(home), "instance": run.parent.name, "run": run.name, "grace_secs": 1}
        argv = [sys.executable, "-I", "-S", str(supervisor), "cancel"]
        subprocess.run(
            argv, input=json.dumps(request).encode(), capture_output=True, check=False, timeout=PATIENCE_SECS
        )
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until and not all((run / "result.json").exists() for run in going):
        time.sleep(0.05)
    while time.monotonic() < until and any(_is_at_work(run) for run in home.glob("runs/*/*")):
        time.sleep(0.02)


def _is_at_work(run: Path) -> bool:
    """Whether the supervisor of a run lives, where /proc tells."""
    try:
        pid = json.loads((run / "state.json").read_text())["pid"]
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ValueError, LookupError, TypeError):
        return False

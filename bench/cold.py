"""cold: from nothing to ready, and from a stopped fleet to ready again, beside the start of a bare Python."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from app.cli.demo.stage import free_port
from app.cli.local.launcher import running
from app.cli.local.process_manager import ProcessManager
from bench.figures import figure


def main() -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare = time.monotonic() - began
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fleet-cold-") as folder:
        Path(folder).chmod(0o755)
        environ = os.environ | {"FLEET_HOME": f"{folder}/home", "PORT": str(free_port())}
        for what in ("an empty folder to ready", "a stopped fleet to ready"):
            began = time.monotonic()
            with ProcessManager() as manager, running(manager, dict(environ), quiet=True):
                figure(f"cold: {what}", time.monotonic() - began, "s", bare)


if __name__ == "__main__":
    main()

"""Runs the fake forge as a process with sample data; writes its address and tokens to a file."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
from pathlib import Path

from .sample_data import add_sample_data
from .server import FakeForge

PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.cli.demo.forge", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="an empty folder for the bare repositories")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--state-file", type=Path, required=True, help="where to write url, port and tokens")
    args = parser.parse_args()
    end = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: end.set())
    end_with_parent()
    forge = FakeForge(args.root, args.port).start()
    tell(args.state_file, {"url": forge.url, "port": forge.port, "users": add_sample_data(forge)})
    end.wait()
    forge.stop()


def end_with_parent() -> None:
    """Linux sends SIGTERM when the parent dies; elsewhere nobody does."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")


def tell(state_file: Path, state: dict[str, object]) -> None:
    line = json.dumps(state)
    draft = state_file.with_name(f".{state_file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(line + "\n")  # the tokens are for their owner's eyes only
    draft.replace(state_file)
    print(state["url"], flush=True)


if __name__ == "__main__":
    main()

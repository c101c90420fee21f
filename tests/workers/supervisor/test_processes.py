"""Between the fork and the first instruction of a program: whoever dies then leaves nobody waiting."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

FORKED = """
import os, time
from workers.supervisor.processes import Child
files = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
print(Child(["sleep", "60"], dict(os.environ), "/", files).pid, flush=True)
time.sleep(60)
"""


def test_a_program_that_was_never_let_go_goes_with_its_supervisor() -> None:
    argv = [sys.executable, "-c", FORKED]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as parent:
        assert parent.stdout is not None
        waiting = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until = time.monotonic() + 10
    while waiting.is_running() and waiting.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it waits for a word of the dead"
        time.sleep(0.02)

"""Programs are held before their first instruction, and waited for without delay."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.patience import patient, wait_until

ROOT = Path(__file__).parents[3]
HOLD = """
import os, signal
from workers.supervisor.processes import Child
files = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
print(Child(["sleep", "60"], dict(os.environ), "/", files).pid, flush=True)
signal.pause()
"""
# Only the exit of the child can end the wait: nothing else is open, and an hour is longer than the test may take.
WAIT = """
import os
from workers.supervisor.processes import Child
from workers.supervisor.watch import Watch
watch = Watch()
child = Child(["true"], dict(os.environ), "/", [os.open("/dev/null", os.O_RDWR) for _ in range(3)])
child.start()
while not child.has_ended():
    watch.wait(3600)
print("ended", child.exit_code)
"""


def test_a_held_program_ends_with_its_supervisor() -> None:
    argv = [sys.executable, "-c", HOLD]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        held = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    wait_until(lambda: not held.is_running() or held.status() == psutil.STATUS_ZOMBIE, "the held program has ended")


def test_the_exit_of_a_child_ends_the_wait_for_it() -> None:
    output = subprocess.check_output([sys.executable, "-c", WAIT], cwd=ROOT, timeout=patient(60))
    assert output == b"ended 0\n"

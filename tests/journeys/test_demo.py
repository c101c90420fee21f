"""The README's first command, as a newcomer runs it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.patience import patient

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.journey


def test_the_demo_tells_the_whole_story_and_leaves_nothing_behind(folder: Path) -> None:
    done = subprocess.run(
        [TOP / "fleet", "demo"],
        capture_output=True,
        text=True,
        timeout=patient(100),
        check=False,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = (
        "was created",
        "placed on localhost",
        "Pull request #2 waits for review",
        "requested changes",
        "completed",
        "receipt",
    )
    at = [done.stdout.index(step) for step in steps]
    assert at == sorted(at)
    start, end = done.stdout.index("{\n"), done.stdout.index("\n}\n") + 3
    receipt = json.loads(done.stdout[start:end])
    assert receipt["pull_request"]["merged_by"] == "reviewer"
    assert receipt["usage"]["input_tokens"] == 2400
    assert list(folder.iterdir()) == []


def test_a_demo_that_is_ended_in_the_midst_leaves_nothing_behind_either(folder: Path) -> None:
    demo = subprocess.Popen(
        [TOP / "fleet", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    assert demo.stdout is not None
    while "placed on" not in demo.stdout.readline():
        assert demo.poll() is None
    demo.terminate()
    demo.communicate(timeout=patient(60))
    assert demo.returncode != 0
    assert list(folder.iterdir()) == []

"""A folder for each journey, with a name short enough for unix sockets; and stages that journeys share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.journeys.issue_journey import Journey, journey
from tests.patience import patient

QUICK = {"FLEET_HEARTBEAT_SECS": "1", "FLEET_CONFIRM_SECS": "20", "FLEET_LOOK_SECS": "5"}  # no host to look at


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that anybody may enter; whatever still runs in it at the end is ended, and fails the test."""
    path = Path(tempfile.mkdtemp(prefix="fj-"))
    path.chmod(0o755)
    yield path
    left = [
        process for process in psutil.process_iter(["cmdline"]) if str(path) in " ".join(process.info["cmdline"] or ())
    ]
    for process in left:
        process.kill()
    shutil.rmtree(path, ignore_errors=True)
    assert left == []


@pytest.fixture(scope="package")
def stage_of_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """A stage without any host, for the agents of many tests: each has a capability of its own."""
    with journey(tmp_path_factory.mktemp("agents"), 0.2, "", FLEET_OFFLINE_AFTER_SECS="60", **QUICK) as travel:
        yield travel


@pytest.fixture(scope="package")
def hasty_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """The same, where silence is soon noticed."""
    hasty = {"FLEET_OFFLINE_AFTER_SECS": f"{patient(8):.0f}", "FLEET_SCAN_SECS": "0.5"}
    with journey(tmp_path_factory.mktemp("hasty"), 0.2, "", **hasty, **QUICK) as travel:
        yield travel

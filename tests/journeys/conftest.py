"""A folder for each journey, with a name short enough for unix sockets."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


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

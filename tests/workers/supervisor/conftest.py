"""Hosts and accounts for the tests of the supervisor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.supervisor.account import delivering, isolating, user
from tests.workers.supervisor.host import Host

__all__ = ["delivering", "isolating", "user"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.kill_all()

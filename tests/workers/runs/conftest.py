"""Fixtures of the tests of runs: a host on this machine whose CLI is a script."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.ports import Fleet
from tests.hosts import LocalHost


@pytest.fixture
def host(fleet: Fleet, clock: Any, tmp_path: Path) -> Iterator[Callable[..., LocalHost]]:
    """Makes the host whose CLI is a script."""
    made: list[LocalHost] = []

    def make(script: str, **given: Any) -> LocalHost:
        made.append(LocalHost(given.pop("fleet", fleet), clock, tmp_path / "hosts", script, **given))
        return made[-1]

    yield make
    for one in made:
        one.end_all()

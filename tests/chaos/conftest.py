"""The whole system on a host, started once for all journeys that kill a part of it (tests/distribution.py)."""

from collections.abc import Iterator

import pytest

from tests.journeys.issue_journey import Journey, journey


@pytest.fixture(scope="package")
def stage_of_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """The host `localhost`, whose CLI works for a moment, and longer while a test holds it."""
    with journey(tmp_path_factory.mktemp("hosts")) as travel:
        yield travel

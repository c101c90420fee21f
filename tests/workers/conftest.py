"""What tests of the workers share."""

from collections.abc import Iterator

import pytest

from workers import hearing


@pytest.fixture(autouse=True)
def fresh_ears() -> Iterator[None]:
    """Each test has a database of its own, in which runs are numbered from 1 again."""
    hearing._ears.clear()
    yield
    hearing._ears.clear()

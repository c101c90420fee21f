"""Waits until a state is reached; one factor scales how long every test waits."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

PATIENCE = "FLEET_TEST_PATIENCE"
MOST = 10.0
LONGEST_TIMEOUT = 300.0  # seconds for one test, unless its own timeout is longer: a hang shows soon on a busy machine
Found = TypeVar("Found")


def wait_until(
    condition: Callable[[], Found],
    what: str,
    seconds: float = 40.0,
    *,
    meanwhile: Callable[[], object] | None = None,
    details: Callable[[], object] | None = None,
    pause: float = 0.02,
) -> Found:
    """Poll `condition` until its result is true, and return that result.

    `meanwhile` runs before each repetition and may fail the test; `details` is called for the failure's text.
    Raises AssertionError that names `what` after `seconds` times the factor of this session.
    """
    end = time.monotonic() + patient(seconds)
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(_describe(what, seconds, details))
        if meanwhile:
            meanwhile()
        time.sleep(pause)  # real waiting: other threads and processes get the CPU between two polls
    return found


def patient(seconds: float) -> float:
    """So many seconds on an idle machine, times the factor of this session. For timeouts and upper bounds."""
    return seconds * factor()


def factor() -> float:
    """FLEET_TEST_PATIENCE; where it is not set, the load of each CPU, which this session and its processes keep."""
    if not os.environ.get(PATIENCE):
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
        os.environ[PATIENCE] = f"{min(max(1.0, load / cpus), MOST):.1f}"
    return float(os.environ[PATIENCE])


def scale_timeouts(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Multiply the timeout of each test, its own or that of pyproject.toml, by the factor, up to LONGEST_TIMEOUT."""
    plain = float(config.getoption("timeout") or config.getini("timeout"))
    for item in items:
        own = item.get_closest_marker("timeout")
        seconds = scaled_timeout(float(own.args[0] if own else plain))
        item.add_marker(pytest.mark.timeout(seconds), append=False)


def scaled_timeout(seconds: float) -> float:
    """The timeout times the factor, at most LONGEST_TIMEOUT; a timeout that is longer by itself stays."""
    return max(seconds, min(patient(seconds), LONGEST_TIMEOUT))


def _describe(what: str, seconds: float, details: Callable[[], object] | None) -> str:
    told = f"Not reached within {patient(seconds):.0f} s: {what}."
    return f"{told}\n{details()}" if details else told

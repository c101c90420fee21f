"""Waiting for a state: its result is returned, and a failure names what was not reached."""

from collections.abc import Iterator

import pytest

from tests import patience
from tests.patience import wait_until


def test_the_result_is_that_of_the_first_poll_that_found_it() -> None:
    found: Iterator[int | None] = iter([None, 0, 7, 8])
    assert wait_until(lambda: next(found), "a number") == 7


def test_what_goes_on_meanwhile_runs_between_two_polls() -> None:
    rounds: list[int] = []
    wait_until(lambda: len(rounds) == 3, "three rounds", meanwhile=lambda: rounds.append(1))
    assert len(rounds) == 3


def test_a_failure_names_what_was_not_reached_and_the_details() -> None:
    with pytest.raises(AssertionError, match=r"Not reached within \d+ s: the end of the run.\nthe log"):
        wait_until(lambda: False, "the end of the run", 0.01, details=lambda: "the log")


def test_every_wait_is_multiplied_by_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.PATIENCE, "2.5")
    assert patience.patient(10) == 25


def test_the_timeout_of_each_test_is_multiplied_by_the_factor_up_to_a_maximum(request: pytest.FixtureRequest) -> None:
    own = request.node.get_closest_marker("timeout")
    assert own.args == (min(patience.patient(120), patience.LONGEST_TIMEOUT),)


@pytest.mark.parametrize(("seconds", "scaled"), [(10, 100), (120, 300), (900, 900)])
def test_a_hang_ends_soon_also_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch, seconds: float, scaled: float
) -> None:
    monkeypatch.setenv(patience.PATIENCE, "10")
    assert patience.scaled_timeout(seconds) == scaled

"""An attempt that fails is tried again, or is not, by one set of rules."""

import pytest

from app.domain.errors import Kind, Refused, Unavailable
from app.services.attempts import Failure, attempt


def fail(error: Exception) -> None:
    raise error


def test_what_succeeds_gives_its_result() -> None:
    assert attempt(lambda: "done") == "done"


@pytest.mark.parametrize("tries", [1, 1000])
def test_an_outage_is_never_final_however_long_it_lasts(tries: int) -> None:
    failure = attempt(lambda: fail(Unavailable("no answer", retry_after=90)), tries, most_tries=10)
    assert failure == Failure("no answer", retry_after=90)


def test_a_refusal_is_final() -> None:
    assert attempt(lambda: fail(Refused(Kind.FORBIDDEN, "403"))) == Failure("403", final=True)


def test_a_refused_token_is_not_final_since_tokens_are_rotated() -> None:
    assert attempt(lambda: fail(Refused(Kind.UNAUTHORIZED, "401"))) == Failure("401")


@pytest.mark.parametrize(("tries", "final"), [(9, False), (10, True)])
def test_an_unexpected_error_is_tried_again_up_to_a_limit(tries: int, final: bool) -> None:
    failure = attempt(lambda: fail(ValueError("odd")), tries, most_tries=10)
    assert failure == Failure("an error in agent-fleet: ValueError('odd')", final=final)


def test_an_unexpected_error_without_a_limit_is_tried_again_for_ever() -> None:
    assert attempt(lambda: fail(ValueError("odd")), 1000) == Failure("an error in agent-fleet: ValueError('odd')")

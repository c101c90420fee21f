"""Whose word counts: people, ourselves not, bots that were invited."""

import pytest

from app.domain.bots import is_accepted, is_bot


@pytest.mark.parametrize("login", ["renovate", "renovate-bot", "dependabot[bot]", "ci-bot", "my_bot", "bot"])
def test_an_account_that_calls_itself_a_bot_is_one(login: str) -> None:
    assert is_bot(login)


@pytest.mark.parametrize("login", ["alice", "abbott", "botanist", "robotnik", "talbot"])
def test_an_account_that_merely_sounds_like_one_is_not(login: str) -> None:
    assert not is_bot(login)


def test_the_forges_own_accounts_and_those_that_say_so_are_bots() -> None:
    assert is_bot("forgejo-actions", -2)
    assert is_bot("fleet", 7, "Fleet (bot)")


def test_our_own_echo_is_never_heard_and_a_bot_only_by_invitation() -> None:
    assert is_accepted("alice", 1, "", 9, [])
    assert not is_accepted("fleet", 9, "", 9, ["fleet"])
    assert not is_accepted("renovate", 5, "", 9, [])
    assert is_accepted("Renovate", 5, "", 9, ["renovate"])

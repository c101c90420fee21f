"""The actions of people and invited bots count, those of the bot itself never."""

import pytest

from app.domain.bots import is_accepted, is_bot


@pytest.mark.parametrize("login", ["renovate", "renovate-bot", "dependabot[bot]", "ci-bot", "my_bot", "bot"])
def test_an_account_with_a_bots_name_is_a_bot(login: str) -> None:
    assert is_bot(login)


@pytest.mark.parametrize("login", ["alice", "abbott", "botanist", "robotnik", "talbot"])
def test_a_name_that_only_contains_the_letters_is_not_a_bot(login: str) -> None:
    assert not is_bot(login)


def test_the_forges_own_accounts_and_full_names_with_bot_are_bots() -> None:
    assert is_bot("forgejo-actions", -2)
    assert is_bot("fleet", 7, "Fleet (bot)")


def test_the_bot_itself_is_never_accepted_and_other_bots_only_if_invited() -> None:
    assert is_accepted("alice", 1, "", 9, [])
    assert not is_accepted("fleet", 9, "", 9, ["fleet"])
    assert not is_accepted("renovate", 5, "", 9, [])
    assert is_accepted("Renovate", 5, "", 9, ["renovate"])

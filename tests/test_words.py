"""The search for old words finds them in names and prose, and ignores words that only look alike."""

import pytest

from tools import words


@pytest.mark.parametrize(
    "code",
    [
        "open_debts = 1",
        "def _hear(): ...",
        "class Bell: ...",
        "row.told_on",
        "place = host",
        '"""What we owe."""',
        "# a bell",
        "# the one door",
    ],
)
def test_an_old_word_is_found_in_a_name_and_in_prose(code: str) -> None:
    assert [*words.in_names("app/x.py", code), *words.in_prose("app/x.py", code)]


@pytest.mark.parametrize(
    "code",
    [
        "payload = 1",
        "placement = 1",
        "settings = 1",
        "early = 1",
        '"""Bellows, payloads and settings."""',
        "heart = 1",
        "place_waiting()",
    ],
)
def test_a_word_that_only_looks_like_one_is_left_alone(code: str) -> None:
    assert not [*words.in_names("app/x.py", code), *words.in_prose("app/x.py", code)]


def test_the_name_of_a_module_counts_and_the_line_of_a_word_is_told() -> None:
    assert list(words.in_names("app/store/bell.py", "")) == [(1, "app/store/bell.py")]
    assert list(words.in_prose("docs/a.md", "one\ntwo debts\n")) == [(2, "debts")]


def test_decision_records_stay_as_they_were_written() -> None:
    assert not list(words.in_prose("docs/decisions/0001-x.md", "a debt"))

"""The page about failures is made from the table of failures."""

from pathlib import Path

from app.domain import failures
from app.domain.run import FAILURES

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


def test_the_page_in_the_docs_is_the_table() -> None:
    assert PAGE.read_text() == failures.page(), "docs/failures.md is older than the table: run `make docs`"


def test_limits_are_names_of_the_table_and_can_pass() -> None:
    assert all(FAILURES[name] for name in failures.LIMITS)


def test_every_name_is_a_word_and_every_row_says_what_to_do() -> None:
    for name, row in failures.TABLE.items():
        assert name.replace("_", "").isalpha() and name.islower()
        assert row.meaning and row.advice.endswith(".")

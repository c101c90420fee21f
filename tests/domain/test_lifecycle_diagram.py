"""The page about the lifecycle is made from its table."""

from pathlib import Path

from app.domain.lifecycle import TRANSITIONS
from app.domain.lifecycle_diagram import lifecycle_page
from app.domain.task import State

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def test_the_page_in_the_docs_is_the_table() -> None:
    assert PAGE.read_text() == lifecycle_page(), "docs/lifecycle.md is older than the table: run `make docs`"


def test_every_row_of_the_table_stands_on_the_page() -> None:
    table = [line for line in lifecycle_page().splitlines() if line.startswith("| ")]
    assert len(table) == len(TRANSITIONS) + 1
    assert all(move.fact in row for move, row in zip(TRANSITIONS, table[1:], strict=True))


def test_the_diagram_knows_every_state() -> None:
    diagram = lifecycle_page().partition("```mermaid")[2].partition("```")[0]
    assert [state for state in State if state not in diagram] == []

"""Prints what commands show: tables as wide as the terminal, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from app.domain.visible_text import one_line

if TYPE_CHECKING:
    from rich.text import Text

COLOURS = {
    "completed": "green", "running": "cyan", "assigned": "cyan", "review_pending": "magenta", "failed": "red",
    "agent_lost": "red", "parked": "yellow",
}  # fmt: skip

json_option = click.option("--json", "json_", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], if_empty: str | None = None) -> None:
    """Print a table as wide as the terminal; the last column takes the space that is left.

    Each cell is one line, without control characters. Without rows, print `if_empty`, or nothing.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return click.echo(if_empty) if if_empty else None
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 1, 0, 0), header_style="bold",
        show_header=any(columns), expand=True,
    )  # fmt: skip
    for name in columns[:-1]:
        grid.add_column(name, no_wrap=True, overflow="ellipsis")
    grid.add_column(columns[-1], overflow="fold", ratio=1, min_width=16)
    for row in cells:
        grid.add_row(*row)
    Console().print(grid)


def print_paragraphs(rows: Iterable[tuple[str, str]]) -> None:
    """Print a word, and beside it lines of text, wrapped at the terminal's width, without control characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    for word, text in rows:
        grid.add_row(_cell(word), Text("\n".join(one_line(line, 1000) for line in text.split("\n"))))
    Console().print(grid)


def age(moment: str, now: datetime) -> str:
    """The time since an RFC 3339 moment, in the largest unit that fits: `42 s`, `7 min`, `3 h`, `12 d`."""
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= 2 * size), (1, "s"))
    return f"{seconds // size} {unit}"


def _cell(value: object) -> "Text":
    from rich.text import Text

    text = "" if value is None else one_line(str(value), 300)
    return Text(text, style=COLOURS.get(text, ""))

"""How the commands show things: tables that fit the terminal, JSON for programs, no control characters of others."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.domain.visible_text import one_line

COLOURS = {
    "completed": "green", "running": "cyan", "assigned": "cyan", "review_pending": "magenta", "failed": "red",
    "agent_lost": "red", "parked": "yellow",
}  # fmt: skip


def as_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], none: str | None = None) -> None:
    """A table as wide as the terminal, the last column taking what is left; text of others is cleaned and put on one
    line. Without rows the words `none`, or nothing at all."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return click.echo(none) if none else None
    grid = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1, 0, 0),
        header_style="bold",
        show_header=any(columns),
        expand=True,
    )
    for name in columns[:-1]:
        grid.add_column(name, no_wrap=True, overflow="ellipsis")
    grid.add_column(columns[-1], overflow="fold", ratio=1, min_width=16)
    for row in cells:
        grid.add_row(*row)
    Console().print(grid)


def passages(rows: Iterable[tuple[str, str]]) -> None:
    """A word, and beside it lines of text that are folded at the terminal's width; text of others is cleaned."""
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    for word, lines in rows:
        grid.add_row(_cell(word), Text("\n".join(one_line(line, 1000) for line in lines.split("\n"))))
    Console().print(grid)


def ago(moment: str, now: datetime) -> str:
    """How long ago an RFC 3339 moment was, in the largest unit that fits: `42 s`, `7 min`, `3 h`, `12 d`."""
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= 2 * size), (1, "s"))
    return f"{seconds // size} {unit}"


def _cell(value: Any) -> Text:
    words = "" if value is None else one_line(str(value), 300)
    return Text(words, style=COLOURS.get(words, ""))

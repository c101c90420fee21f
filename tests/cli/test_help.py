"""`fleet --help` and the help of every command, as a terminal of 80 columns shows them."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from app.cli.__main__ import COMMANDS, SECTIONS, fleet

WIDTH = 80


def pages(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command and group below `command`."""
    yield words
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from pages(below, *words, name)


PAGES = [page for page in pages(fleet) if page != ("test",)]  # `fleet test --help` is pytest's


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_no_line_of_a_help_page_is_cut_or_too_wide(page: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(fleet, [*page, "--help"], env={"COLUMNS": str(WIDTH)}, prog_name="fleet")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    usage = [line for line in lines if line.startswith("Usage: ") or "[OPTIONS]" in line]
    assert [line for line in lines if "..." in line and line not in usage] == []


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_every_option_has_a_help_text(page: tuple[str, ...]) -> None:
    command: click.Command = fleet
    for name in page:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name) or command
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_table_is_the_commands_own(name: str) -> None:
    command = fleet.get_command(click.Context(fleet), name)
    assert command is not None
    assert COMMANDS[name].help.rstrip(".") == command.get_short_help_str(limit=200).rstrip(".")


def test_the_help_lists_every_command_in_its_section() -> None:
    shown = CliRunner().invoke(fleet, ["--help"], env={"COLUMNS": str(WIDTH)}).output
    assert all(f"\n{title}:\n" in shown for title in SECTIONS)
    assert all(f"\n  {name} " in shown for name in COMMANDS)

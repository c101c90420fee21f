"""`fleet docs`: writes the pages that are made from the code."""

from pathlib import Path

import click

from app.domain.diagram import lifecycle_page

LIFECYCLE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


@click.command(hidden=True)
def docs() -> None:
    """Write docs/lifecycle.md from the table of the lifecycle."""
    LIFECYCLE.write_text(lifecycle_page())
    click.echo(f"wrote {LIFECYCLE}")

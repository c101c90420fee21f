"""`fleet docs`: writes the pages that are made from the code."""

from pathlib import Path

import click

from app.domain import failures
from app.domain.lifecycle_diagram import lifecycle_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"lifecycle.md": lifecycle_page, "failures.md": failures.page}


@click.command(hidden=True)
def docs() -> None:
    """Write the pages that are made from tables: the lifecycle, the failures."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
        click.echo(f"wrote {DOCS / name}")

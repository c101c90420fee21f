"""`fleet docs`: writes the documentation pages that are made from code."""

from pathlib import Path

import click

DOCS = Path(__file__).parents[2] / "docs"


@click.command()
def docs() -> None:
    """Write the documentation pages made from code.

    They are docs/lifecycle.md and docs/failures.md.
    """
    from app.domain import failures
    from app.domain.lifecycle_diagram import lifecycle_page

    for name, page in {"lifecycle.md": lifecycle_page, "failures.md": failures.page}.items():
        (DOCS / name).write_text(page())
        click.echo(f"wrote {DOCS / name}")

"""Makes a fake forge that checks each call and answer against Forgejo's own API description."""

from pathlib import Path

from app.cli.demo.forge import FakeForge

DESCRIPTION = Path(__file__).parents[1] / "fixtures" / "forgejo" / "swagger-subset.json"


def checked_forge(root: Path) -> FakeForge:
    """Not started yet; `violations` lists each difference from the description."""
    return FakeForge(root, description=DESCRIPTION)

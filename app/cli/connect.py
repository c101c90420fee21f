"""Opens the fleet that a command works on."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.ports import Fleet


def open_fleet() -> "Fleet":
    """The fleet in click's context, where a test puts one; else the fleet of the environment's settings.

    Raises ConfigError when a setting is wrong.
    """
    from app import wiring
    from app.ports import Fleet

    context = click.get_current_context(silent=True)
    given = context.find_object(Fleet) if context else None
    return given or wiring.fleet(connections=1)

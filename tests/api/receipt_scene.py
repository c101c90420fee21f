"""Gives a task to an agent for the tests of receipts."""

from typing import Any

from tests.agent_client import Agent
from tests.workshop import WIDGETS, Workshop


def taken(shop: Workshop, agent: Agent) -> tuple[int, Any]:
    """An issue whose task the agent works on: its number, and the task."""
    number = shop.open_issue()
    shop.converge()
    return number, agent.take()


def pull_url(shop: Workshop, pull: int) -> str:
    return f"{shop.forge.url}/{WIDGETS}/pulls/{pull}"

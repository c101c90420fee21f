"""Builds a workshop whose work is for agents, and registers an agent."""

from typing import Any

import pytest

from app.cli.demo.forge import FakeForge
from tests.agent_client import Agent, an_agent
from tests.builders import a_host
from tests.workshop import Workshop


@pytest.fixture
def shop(forge: FakeForge, make_fleet: Any) -> Workshop:
    """A workshop whose only host can do nothing: the work is for agents."""
    return Workshop(forge, make_fleet, hosts=[a_host(capabilities=("nothing",))])


@pytest.fixture
def agent(shop: Workshop) -> Agent:
    shop.client.environ_base["HTTP_AUTHORIZATION"] = "Bearer operator-token-of-the-test"
    return an_agent(shop.client)

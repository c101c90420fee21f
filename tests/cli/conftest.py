"""Calls commands on the workshop's database and forge, in this process."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import pytest
from click.testing import CliRunner, Result

from app.cli.__main__ import fleet as commands
from app.config import settings
from app.ports import Clock
from tests import servers
from tests.workshop import SECRET, Workshop


class Call(Protocol):
    """Runs `fleet WORDS`, with more settings and another clock where a test wants them."""

    def __call__(self, *words: str, environ: Mapping[str, str] | None = None, clock: Clock | None = None) -> Result: ...


@pytest.fixture
def call(workshop: Workshop, database: str) -> Call:
    token = workshop.fleet.config.secret("FLEET_FORGE_TOKEN") or ""
    given = servers.config(
        DATABASE_URL=database, REDIS_URL=servers.valkey_url(), FLEET_WEBHOOK_SECRET=SECRET, FLEET_FORGE_TOKEN=token
    )

    def run(*words: str, environ: Mapping[str, str] | None = None, clock: Clock | None = None) -> Result:
        config = settings.read(given | dict(environ or {}))
        fleet = replace(workshop.fleet, config=config, clock=clock or workshop.fleet.clock)
        return CliRunner().invoke(commands, words, obj=fleet, env=given | dict(environ or {}))

    return run

"""Fixtures of all tests: a fresh database, a fleet with its own clock, a forge, a client, hosts behind sshd."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine

from app import wiring
from app.cli.demo.forge import FakeForge
from app.domain.masking import Mask
from app.ports import Fleet
from app.store.engine import connect
from tests import distribution, patience, servers, summary
from tests import find_sshd as programs
from tests import sshd as sshd_server
from tests.fakes.checked_forge import checked_forge
from tests.find_sshd import Program
from tests.web_process import client_of
from tests.workshop import Workshop

_shared: list[servers.Servers] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the process that was called, not in those of pytest-xdist."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        patience.factor()  # before the test processes start, which inherit it
        shared = servers.Servers()
        _shared.append(shared)
        shared.start()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> distribution.ByFile:
    return distribution.ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    patience.scale_timeouts(config, items)
    distribution.longest_first(items)


def pytest_unconfigure(config: pytest.Config) -> None:
    while _shared:
        _shared.pop().stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the versions of the real programs that tests used, and in red the programs that were missing."""
    found = programs.found_in(servers.home() / "sshd") if _shared else None
    if found:
        terminalreporter.write_line(f"SSH was tested against {found}")
    for line in summary.lines() if _shared else ():
        is_lacking = line.startswith(summary.LACKED)
        terminalreporter.write_line(line, red=is_lacking, bold=is_lacking)


class FakeClock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class CountingNudge:
    """A nudge that only counts. Tests run the workers' jobs themselves."""

    def __init__(self) -> None:
        self.count = 0

    def soon(self) -> None:
        self.count += 1


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The address of one database for this test process."""
    name = servers.fresh_name()
    servers.create(name)
    yield servers.url(name)
    servers.drop(name)


@pytest.fixture(scope="session")
def shared_engine(database: str) -> Iterator[Engine]:
    engine = connect(database, 20)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session", name="sshd_program")
def find_sshd() -> Program:
    """How to run an sshd here."""
    return programs.find(servers.home() / "sshd")


@pytest.fixture
def sshd(tmp_path: Path, sshd_program: Program) -> Iterator[sshd_server.Sshd]:
    """An sshd with three hosts."""
    with sshd_server.running(tmp_path / "sshd", sshd_program, count=3) as running:
        yield running


@pytest.fixture
def make_sshd(tmp_path: Path, sshd_program: Program) -> Iterator[Callable[..., sshd_server.Sshd]]:
    """Start an sshd with further lines of sshd_config."""
    with ExitStack() as stack:

        def make(settings: str, count: int = 1) -> sshd_server.Sshd:
            folder = tmp_path / f"sshd-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(sshd_server.running(folder, sshd_program, count, settings, first=20))

        yield make


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """An engine on an empty database, which is emptied again after the test."""
    yield shared_engine
    servers.empty(shared_engine)


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """One transaction, rolled back at the end."""
    with engine.connect() as conn:
        yield conn


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[FakeForge]:
    """A fake forge whose every answer is checked against the real one's API description."""
    with checked_forge(tmp_path / "forge") as forge:
        yield forge
    assert forge.violations == []


@pytest.fixture
def make_fleet(engine: Engine, clock: FakeClock, database: str, tmp_path: Path) -> Callable[..., Fleet]:
    """Build a fleet on the test's database, with the test's clock and a nudge that only counts."""

    def make(**environ: str) -> Fleet:
        given = servers.config(DATABASE_URL=database, REDIS_URL=servers.valkey_url(), **environ)
        fleet = wiring.fleet(given, connections=1)
        fleet.engine.dispose()
        forges = wiring.Forges(fleet.config, engine, clock)
        mask = Mask([*environ.values(), "operator-token-of-the-test"])
        return replace(fleet, engine=engine, forges=forges, clock=clock, nudge=CountingNudge(), mask=mask)

    return make


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet()


@pytest.fixture
def client(fleet: Fleet) -> FlaskClient:
    """The web application's client, with an operator's token."""
    client = client_of(fleet)
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer operator-token-of-the-test"
    return client


@pytest.fixture
def workshop(forge: FakeForge, make_fleet: Callable[..., Fleet]) -> Workshop:
    """A repository on the fake forge with a webhook, and a fleet that works for it."""
    return Workshop(forge, make_fleet)

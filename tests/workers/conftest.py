"""Fixtures of the worker tests: clients of hosts, and workers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.ports import Fleet
from workers.hosts.client import HostClient
from workers.worker import Worker


@pytest.fixture
def make_hosts(tmp_path: Path) -> Iterator[Callable[..., HostClient]]:
    """Makes clients of hosts that are closed after the test."""
    with ExitStack() as stack:

        def make(**given: Any) -> HostClient:
            client = HostClient(tmp_path / "local", lambda: "i1", **given)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def hosts(make_hosts: Callable[..., HostClient]) -> HostClient:
    return make_hosts()


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    """Makes workers that are closed after the test."""
    with ExitStack() as stack:

        def make(fleet: Fleet, **given: Any) -> Worker:
            worker = Worker(fleet, **{"poll_threads": 4, **given})
            stack.callback(worker.close)
            return worker

        yield make


@pytest.fixture
def worker(make_worker: Callable[..., Worker], fleet: Fleet) -> Worker:
    return make_worker(fleet)

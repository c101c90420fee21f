"""What tests of the hands share: hosts that are reached over a real sshd, and fresh ears."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.domain.host import Fitness
from tests import sshd as servers_of_ssh
from tests.patience import patient
from workers.runs import output
from workers.ssh import pool
from workers.ssh.connection import Limits

QUICK = Limits(connect=patient(0.6), greet=patient(1.5), channel=patient(0.6), answer=patient(1.0))
Json = dict[str, Any]


@pytest.fixture
def sshd(tmp_path: Path, sshd_program: servers_of_ssh.Program) -> Iterator[servers_of_ssh.Sshd]:
    """An sshd with three hosts."""
    with servers_of_ssh.running(tmp_path / "sshd", sshd_program, count=3) as running:
        yield running
        pool.forget()


@pytest.fixture
def make_sshd(tmp_path: Path, sshd_program: servers_of_ssh.Program) -> Iterator[Callable[..., servers_of_ssh.Sshd]]:
    """Starts an sshd with settings of its own."""
    with ExitStack() as stack:

        def make(settings: str, count: int = 1) -> servers_of_ssh.Sshd:
            folder = tmp_path / f"sshd-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(servers_of_ssh.running(folder, sshd_program, count, settings, first=20))

        yield make
        pool.forget()


def as_row(declared: Json, **given: Any) -> Any:
    """A declared host as its row would be."""
    reach = {name: declared[name] for name in ("ssh_user", "ssh_port", "ssh_key_path", "host_key")}
    plain = {name: declared[name] for name in ("host_id", "hostname", "work_dir")}
    return {**plain, "reach": reach, "fitness": Fitness.UNKNOWN, "why": None, **given}


def request(sshd: servers_of_ssh.Sshd, at: int = 0, **given: Any) -> Json:
    return {"home": str(sshd.work(at)), "instance": "i1", **given}


@pytest.fixture(autouse=True)
def fresh_ears() -> Iterator[None]:
    """Each test has a database of its own, in which runs are numbered from 1 again."""
    output._ears.clear()
    yield
    output._ears.clear()

"""`fleet hosts`, as an operator types it, with a real sshd at the other end."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli.hosts import hosts as commands
from app.domain.errors import Refused
from app.logs import set_up_logs
from app.ports import Fleet
from app.store import hosts as host_rows
from tests import servers
from tests.builders import a_stored_task, apply
from tests.sshd import Sshd, user_name
from workers.ssh.host_keys import fingerprint

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)  # each test walks to a host several times, in a process of its own


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def hosts(fleet: Fleet, database: str, tmp_path: Path) -> Iterator[Any]:
    """Calls `fleet hosts ...` on the test's database, in this process: starting it takes longer than all it does."""
    environ = servers.config(DATABASE_URL=database, REDIS_URL=servers.valkey_url())
    environ |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "COLUMNS": "200", "FLEET_HOME": str(tmp_path / "h")}
    with fleet.engine.begin() as conn:
        apply(conn, clis={"coder": {"argv": ["sh"], "version": ["sh", "-c", "echo coder 1.2"]}})

    def call(*words: str, answer: str = "") -> Done:
        result = CliRunner().invoke(commands, words, input=answer, env=environ)
        refused = str(result.exception) if isinstance(result.exception, Refused) else ""
        return Done(result.exit_code, result.stdout, result.stderr + refused)

    yield call
    set_up_logs(fleet.mask)  # a command has them on a stream that is closed now


def add(sshd: Sshd, host_id: str = "build-1", at: int = 0, *more: str) -> list[str]:
    return [
        "add", host_id, sshd.addresses[at], "--port", str(sshd.port), "--user", user_name(), "--key", sshd.key_path,
        "--work-dir", str(sshd.work(at)), "--slots", "coder=2:python,rust", "--label", "rack-3", *more,
    ]  # fmt: skip


def test_a_host_is_added_shown_tested_drained_and_forgotten(hosts: Any, sshd: Sshd, fleet: Fleet) -> None:
    declined = hosts(*add(sshd), answer="n\n")
    assert declined.returncode != 0 and fingerprint(sshd.host_key) in declined.stderr
    assert "build-1" not in hosts("list").stdout
    added = hosts(*add(sshd), "--fingerprint", fingerprint(sshd.host_key))
    assert added.returncode == 0, added.stderr
    assert "ok   host key" in added.stdout and "coder 1.2" in added.stdout
    with fleet.engine.begin() as conn:
        apply(conn, clis={"coder": {"argv": ["sh"]}})  # `fleet apply` leaves it as it is
    (one,) = json.loads(hosts("list", "--label", "rack-3", "--json").stdout)
    assert (one["host_id"], one["fitness"], one["origin"]) == ("build-1", "fit", "added")
    assert one["slots"][0]["capabilities"] == ["python", "rust"] and one["probe"]["git"]
    assert json.loads(hosts("show", "build-1", "--json").stdout) == one
    assert "build-1 is drained" in hosts("drain", "build-1").stdout
    assert "build-1 is unknown" in hosts("resume", "build-1").stdout
    assert hosts("remove", "build-1").returncode == 0
    assert hosts("show", "build-1").returncode == 1


def test_what_is_wrong_with_a_host_is_a_sentence_and_an_exit_code(hosts: Any, sshd: Sshd, fleet: Fleet) -> None:
    wrong = hosts(*add(sshd), "--fingerprint", "SHA256:nothing")
    assert wrong.returncode == 1 and "nothing was added" in wrong.stderr
    nowhere = hosts(*add(sshd, "build-1", 0, "--jump", "nowhere"), "--yes")
    assert nowhere.returncode == 1 and "has the proxy_jump 'nowhere', which is not declared" in nowhere.stderr
    assert hosts(*add(sshd), "--yes").returncode == 0
    sshd.change_host_key()
    tested = hosts("test", "build-1")
    assert tested.returncode == 1
    assert "FAIL host key" in tested.stdout and "find out why" in tested.stdout
    assert json.loads(hosts("show", "build-1", "--json").stdout)["fitness"] == "quarantined"
    assert hosts(*add(sshd), "--yes").returncode == 0  # adding it again accepts the new key
    assert json.loads(hosts("show", "build-1", "--json").stdout)["fitness"] == "fit"
    with fleet.engine.begin() as conn:
        apply(conn)
        a_stored_task(conn)
        host_rows.remove_host(conn, "localhost")
    refused = hosts("remove", "nowhere")
    assert refused.returncode == 1 and "There is no host 'nowhere'" in refused.stderr

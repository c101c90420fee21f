"""`fleet logs` as a person calls it: exact bytes into a pipe, harmless text on a terminal, and while it is printed."""

import base64
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.run import Run
from app.ports import Fleet
from app.services.dispatch import placement
from app.services.runs import report
from app.store import runs
from tests import servers
from tests.builders import a_stored_task, apply
from tests.patience import patient

TOP = Path(__file__).parents[2]
EVIL = b"plain\n\x1b]0;owned\x07\x1b[2J \xff\n"


@pytest.fixture
def run(fleet: Fleet) -> Run:
    with fleet.engine.begin() as conn:
        apply(conn)
        task = a_stored_task(conn, at=fleet.clock())
    placement.place_waiting(fleet)
    with fleet.engine.begin() as conn:
        run = runs.get(conn, task.id, 1)
    assert run is not None
    report.started(fleet, run)
    return run


@pytest.fixture
def command(database: str) -> Callable[..., "subprocess.Popen[bytes]"]:
    environ = {
        **os.environ,
        **servers.config(DATABASE_URL=database, REDIS_URL=servers.valkey_url()),
        "PYTHONPATH": str(TOP),
    }

    def call(*words: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-m", "app.cli", "logs", *words]
        return subprocess.Popen(argv, env=environ, stdout=stdout, stderr=subprocess.PIPE)

    return call


def test_into_a_pipe_it_is_what_was_printed(
    fleet: Fleet, run: Run, command: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    report.log(fleet, run, "stdout", 0, EVIL * 1000)
    report.log(fleet, run, "stderr", 0, b"trouble")
    assert command("acme/widgets#12").communicate() == (EVIL * 1000, b"")
    assert command("--stderr", "--run", "1", "acme/widgets#12").communicate() == (b"trouble", b"")
    _, said = command("--run", "7", "acme/widgets#12").communicate()
    assert b"has no run 7" in said


def test_on_a_terminal_nothing_of_it_acts(
    fleet: Fleet, run: Run, command: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    report.log(fleet, run, "stdout", 0, EVIL)
    ours, theirs = pty.openpty()
    with command("acme/widgets#12", stdout=theirs) as process:
        os.close(theirs)
        process.communicate()
        said = os.read(ours, 4096)
    os.close(ours)
    assert b"\x1b" not in said and b"\x07" not in said
    assert said.startswith(b"plain\r\n]0;owned")


def test_for_programs_each_piece_has_its_offset(
    fleet: Fleet, run: Run, command: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    report.log(fleet, run, "stdout", 0, b"head")
    report.log(fleet, run, "stdout", 1004, b"tail", from_host=True)
    lines = [json.loads(line) for line in command("--json", "acme/widgets#12").communicate()[0].splitlines()]
    assert [(one["offset"], one["left_out"], base64.b64decode(one["data"])) for one in lines] == [
        (0, 0, b"head"), (1004, 1000, b"tail")]  # fmt: skip


def test_followed_it_goes_on_until_the_run_has_ended(
    fleet: Fleet, run: Run, command: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    report.log(fleet, run, "stdout", 0, b"one\n")
    with command("-f", "acme/widgets#12") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        report.log(fleet, run, "stdout", 4, b"two\n")
        assert process.stdout.readline() == b"two\n"
        report.log(fleet, run, "stdout", 8, b"three\n")
        report.failed(fleet, run, "cli_failed", "no", transient=False)
        assert process.communicate(timeout=patient(30))[0] == b"three\n"
        assert process.returncode == 0

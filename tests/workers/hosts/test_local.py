"""The supervisor on this machine: it is installed whole for many threads at once, and serves one request after another."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.patience import patient
from workers.errors import Unreachable
from workers.hosts.local import LocalSupervisors, install
from workers.ssh.deadlines import Deadlines

THREADS = 12
MakeLocal = Callable[[float], LocalSupervisors]


def test_threads_that_install_it_at_the_same_time_all_get_it_whole(tmp_path: Path) -> None:
    together, found = threading.Barrier(THREADS), list[Path]()

    def copy() -> None:
        together.wait()
        found.append(install(str(tmp_path)))

    threads = [threading.Thread(target=copy) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == THREADS
    done = subprocess.run(
        [sys.executable, "-I", "-S", found[0], "nothing"], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert b"is not a verb" in done.stdout


@pytest.fixture
def make_local() -> Iterator[Callable[[float], LocalSupervisors]]:
    """Makes supervisors that answer within so many seconds."""
    with ExitStack() as stack:

        def make(secs: float) -> LocalSupervisors:
            deadlines = stack.enter_context(closing(Deadlines()))
            return stack.enter_context(closing(LocalSupervisors(deadlines, secs)))

        yield make


def test_an_idle_supervisor_answers_again_and_one_that_died_is_replaced(tmp_path: Path, make_local: MakeLocal) -> None:
    local, body = make_local(60), a_poll(tmp_path)
    assert local.request("poll", body)["boot_id"]
    (first,) = serving(tmp_path)
    assert local.request("probe", body)["git"]
    assert serving(tmp_path) == {first}
    os.kill(first, signal.SIGKILL)
    assert local.request("poll", body)["boot_id"]
    assert serving(tmp_path).isdisjoint({first})
    local.close()
    assert not serving(tmp_path)


def test_a_supervisor_that_does_not_answer_in_time_is_ended(tmp_path: Path, make_local: MakeLocal) -> None:
    path = install(str(tmp_path))
    path.unlink()
    path.with_suffix("").with_suffix(".py").unlink()
    os.mkfifo(path)
    with pytest.raises(Unreachable, match="in time"):
        make_local(0.3).request("poll", a_poll(tmp_path))
    assert not serving(tmp_path)


def test_an_idle_supervisor_that_does_not_answer_in_time_is_asked_once(tmp_path: Path, make_local: MakeLocal) -> None:
    local = make_local(patient(3))
    assert local.request("poll", a_poll(tmp_path))["boot_id"]
    (idle,) = serving(tmp_path)
    os.kill(idle, signal.SIGSTOP)
    with pytest.raises(Unreachable, match="in time"):
        local.request("poll", a_poll(tmp_path))
    assert not serving(tmp_path)


def a_poll(home: Path) -> dict[str, Any]:
    return {"home": str(home), "instance": "i1", "runs": []}


def serving(home: Path) -> set[int]:
    """The pids of our supervisors that serve requests for a folder, without the children that answer them."""
    ours = [(child.pid, child.cmdline()) for child in psutil.Process().children()]
    return {pid for pid, argv in ours if argv[-1:] == ["serve"] and any(word.startswith(str(home)) for word in argv)}

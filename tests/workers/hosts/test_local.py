"""The supervisor on this machine: its copy is whole for all who come at the same time, and it stays to be asked."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from workers.errors import Unreachable
from workers.hosts import local

THREADS = 12


def test_many_who_need_it_at_the_same_time_all_get_it_whole(tmp_path: Path) -> None:
    together, found = threading.Barrier(THREADS), list[Path]()

    def copy() -> None:
        together.wait()
        found.append(local.copied(str(tmp_path)))

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


def test_a_supervisor_that_stays_answers_again_and_one_that_died_meanwhile_is_missed_by_nobody(tmp_path: Path) -> None:
    asked = {"home": str(tmp_path), "instance": "i1", "runs": []}
    try:
        assert local.ask("poll", asked)["boot_id"]
        (first,) = serving(tmp_path)
        assert local.ask("probe", asked)["git"]
        assert serving(tmp_path) == {first}
        os.kill(first, signal.SIGKILL)
        assert local.ask("poll", asked)["boot_id"]
        assert serving(tmp_path).isdisjoint({first})
    finally:
        local.forget()
    assert not serving(tmp_path)


def test_one_that_does_not_answer_in_time_is_ended_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SECONDS", 0.3)
    path = local.copied(str(tmp_path))
    path.unlink()
    path.with_suffix("").with_suffix(".py").unlink()
    os.mkfifo(path)
    with pytest.raises(Unreachable, match="in time"):
        local.ask("poll", {"home": str(tmp_path), "instance": "i1", "runs": []})
    assert not serving(tmp_path)


def test_one_that_waited_and_does_not_answer_in_time_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"home": str(tmp_path), "instance": "i1", "runs": []}
    assert local.ask("poll", asked)["boot_id"]
    (waiting,) = serving(tmp_path)
    os.kill(waiting, signal.SIGSTOP)
    monkeypatch.setattr(local, "SECONDS", 0.3)
    with pytest.raises(Unreachable, match="in time"):
        local.ask("poll", asked)
    assert not serving(tmp_path)


def serving(home: Path) -> set[int]:
    """The supervisors of ours that wait for requests about a folder, without the children by which they answer."""
    ours = [(child.pid, child.cmdline()) for child in psutil.Process().children()]
    return {pid for pid, argv in ours if argv[-1:] == ["serve"] and any(word.startswith(str(home)) for word in argv)}

"""The supervisor's copy on this machine: whole for whoever comes first, and for all who come at the same time."""

import subprocess
import sys
import threading
from pathlib import Path

from workers import reach

THREADS = 12


def test_many_who_need_it_at_the_same_time_all_get_it_whole(tmp_path: Path) -> None:
    together, found = threading.Barrier(THREADS), list[Path]()

    def copy() -> None:
        together.wait()
        found.append(reach._copied(str(tmp_path)))

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

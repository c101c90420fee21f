"""Logs are bounded: the beginning and the end are kept, also on a full disk."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.supervisor.host import RUN, Host, Json

SMALL = {"log_head_bytes": 4000, "log_tail_bytes": 8000}
MOST_ON_DISK = 4000 + 8000 * 9 // 8


def read_log(host: Host, limit: int = 3000) -> list[tuple[int, bytes]]:
    """Return the pieces of standard output, with their offsets, that polls answer with."""
    pieces, at = [], 0
    for _ in range(100):
        log: Json = host.ask("poll", runs=[{"run": RUN, "stdout": at}], limit=limit)["runs"][RUN]["stdout"]
        if log["data"]:
            pieces.append((log["offset"], log["data"]))
        at = log["offset"] + len(log["data"])
        if at >= log["size"]:
            return pieces
    raise AssertionError("the log has no end")


def size_on_disk(host: Host, name: str) -> int:
    return sum(path.stat().st_size for path in host.folder().glob(f"{name}*"))


def test_a_log_that_is_too_long_keeps_both_ends_and_its_offsets(host: Host) -> None:
    whole = b"".join(b"%d\n" % n for n in range(1, 20001))
    host.start("seq 1 20000", limits=SMALL)
    assert host.result()["logs"] == {"stdout": len(whole), "stderr": 0}
    assert 12000 <= size_on_disk(host, "stdout.log") <= MOST_ON_DISK
    pieces = read_log(host)
    assert b"".join(piece for _, piece in pieces[:2])[:4000] == whole[:4000]
    assert all(whole[at : at + len(piece)] == piece for at, piece in pieces)
    tail = b"".join(piece for at, piece in pieces if at >= 4000)
    assert len(tail) >= 8000 and whole.endswith(tail)


def test_polls_during_the_run_reach_the_end_of_a_long_log(host: Host) -> None:
    host.start("for n in $(seq 1 40); do seq $n $((n + 100)); sleep 0.01; done", limits=SMALL)
    output, at = b"", 0
    while True:
        run = host.ask("poll", runs=[{"run": RUN, "stdout": at}])["runs"][RUN]
        log = run["stdout"]
        assert log["offset"] >= at
        output, at = output + log["data"], log["offset"] + len(log["data"])
        if run["result"] and at >= log["size"]:
            break
    expected = b"".join(b"%d\n" % k for n in range(1, 41) for k in range(n, n + 101))
    assert at == len(expected)
    assert output.startswith(expected[:4000]) and output.endswith(expected[-8000:])


def test_the_log_of_a_validation_is_bounded(host: Host) -> None:
    host.start("true", validation=["yes | head -c 3000000"], limits=SMALL)
    assert host.result()["validation"][0]["exit_code"] == 0
    assert size_on_disk(host, "validate.log") <= MOST_ON_DISK


def test_thirty_megabytes_are_kept_whole_by_default(host: Host) -> None:
    host.start("head -c 30000000 /dev/zero | tr '\\0' x")
    assert host.result(secs=60)["logs"]["stdout"] == 30_000_000
    assert (host.folder() / "stdout.log").stat().st_size == 30_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_loses_log_and_not_the_run(host: Host, small_disk: Path) -> None:
    host.home = small_disk / "fleet"
    host.start("head -c 3000000 /dev/zero | tr '\\0' x; echo the end")
    result = host.result()
    assert (result["end"], result["logs"]["stdout"]) == ("finished", 3_000_008)
    assert sum(len(piece) for _, piece in read_log(host, limit=1 << 20)) < 1 << 20


def test_the_result_is_written_to_a_disk_that_others_filled(host: Host, small_disk: Path) -> None:
    host.home = small_disk / "fleet"
    fill = f"head -c 2000000 /dev/zero > {small_disk}/filled 2>/dev/null; cat > more; exit 0"
    host.start(fill, agent={"prompt": "x" * 100_000})
    result = host.result()
    assert result["end"] in ("finished", "failed")
    if result["end"] == "failed":
        assert result["failure"] == "disk_full"
    assert json.loads((host.folder() / "result.json").read_text())["end"] == result["end"]


def test_a_release_deletes_every_piece_of_a_log(host: Host) -> None:
    host.start("seq 1 20000", limits=SMALL)
    host.result()
    host.release(repository=None)
    assert not host.folder().exists()

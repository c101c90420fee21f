"""A poll answers with the state of runs and the new bytes of their logs."""

from __future__ import annotations

import time

from tests.patience import wait_until
from tests.workers.supervisor.host import RUN, Host, Json

STREAMS = ("stdout", "stderr")


class Reader:
    """Polls two runs and collects what their logs grow by, at most 600 bytes at a time."""

    LIMIT = 600

    def __init__(self, host: Host, *runs: str) -> None:
        self._host, self.logs = host, {run: dict.fromkeys(STREAMS, b"") for run in runs}

    def read(self) -> bool:
        """Poll once. Return True if both runs have ended and every byte is read."""
        offsets = [{"run": run, **{name: len(log) for name, log in logs.items()}} for run, logs in self.logs.items()]
        answer: Json = self._host.ask("poll", runs=offsets, limit=self.LIMIT)["runs"]
        pieces = [(run, name, answer[run][name]) for run in self.logs for name in STREAMS]
        assert sum(len(piece["data"]) for _, _, piece in pieces) <= self.LIMIT
        for run, name, piece in pieces:
            assert piece["offset"] == len(self.logs[run][name])
            self.logs[run][name] += piece["data"]
        return all(answer[run]["result"] and piece["size"] == len(self.logs[run][name]) for run, name, piece in pieces)


def test_logs_come_without_gap_or_repetition_under_a_small_limit(host: Host) -> None:
    host.start("seq 1 3000; seq 1 500 >&2")
    host.start("seq 1 200", run="u-1.1", task="u-1")
    reader = Reader(host, RUN, "u-1.1")
    wait_until(reader.read, "both logs are read to their end", 60)
    assert reader.logs[RUN]["stdout"] == b"".join(b"%d\n" % n for n in range(1, 3001))
    assert reader.logs[RUN]["stderr"] == b"".join(b"%d\n" % n for n in range(1, 501))
    assert reader.logs["u-1.1"]["stdout"] == b"".join(b"%d\n" % n for n in range(1, 201))


def test_a_run_that_was_never_started_is_unknown(host: Host) -> None:
    answer = host.ask("poll", runs=[{"run": RUN, "stdout": 0, "stderr": 0}])
    assert answer["runs"] == {RUN: {"known": False}}
    assert answer["boot_id"]
    assert abs(answer["now"] - time.time()) < 30


def test_a_poll_says_how_much_disk_is_free(host: Host) -> None:
    assert host.ask("poll", runs=[])["disk_free"] > 0

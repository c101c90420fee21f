"""A nudge delays no caller, whatever the broker does."""

import socket
import time
from pathlib import Path

from app.broker import Nudge
from tests.patience import patient


def seconds_of(nudge: Nudge) -> float:
    began = time.monotonic()
    nudge.soon()
    return time.monotonic() - began


def test_no_caller_waits_for_a_broker_that_is_not_there(tmp_path: Path) -> None:
    nudge = Nudge(f"redis+socket://{tmp_path}/valkey.sock")
    assert max(seconds_of(nudge) for _ in range(50)) < patient(0.5)


def test_no_caller_waits_for_a_broker_that_accepts_and_does_not_answer() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        nudge = Nudge(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        assert max(seconds_of(nudge) for _ in range(50)) < patient(0.5)

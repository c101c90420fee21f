"""The nudge: a hint to the workers that nobody waits for."""

import socket
import time
from pathlib import Path

from app.broker import Nudge
from tests.patience import patient


def seconds_of(nudge: Nudge) -> float:
    began = time.monotonic()
    nudge.soon()
    return time.monotonic() - began


def test_where_nothing_listens_nobody_waits(tmp_path: Path) -> None:
    assert seconds_of(Nudge(f"redis+socket://{tmp_path}/valkey.sock")) < patient(1)


def test_where_nobody_answers_the_first_waits_a_moment_and_the_others_do_not() -> None:
    with socket.socket() as mute:  # takes connections and says nothing
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        nudge = Nudge(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        assert seconds_of(nudge) < patient(4)
        assert max(seconds_of(nudge) for _ in range(50)) < patient(0.5)

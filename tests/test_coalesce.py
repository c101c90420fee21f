"""A burst of requests becomes few calls, on a thread of their own."""

import threading
from collections.abc import Iterator

import pytest

from app.coalesce import Coalescer
from tests.patience import patient, wait_until

NAME = "coalescer of a test"


class Receiver:
    """Counts the calls; while `gate` is closed, a call does not return."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.calls = 0
        self.seen: list[int] = []
        self.written = 0
        self.gate.set()

    def __call__(self) -> None:
        self.calls += 1
        self.seen.append(self.written)
        self.entered.release()
        assert self.gate.wait(patient(30))

    def wait_for_call(self) -> None:
        assert self.entered.acquire(timeout=patient(30))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.gate.set()
    wait_until(is_quiet, "the end of the thread")


@pytest.fixture
def coalescer(receiver: Receiver) -> Coalescer:
    return Coalescer(NAME, receiver, pause=0.001)


def is_quiet() -> bool:
    return NAME not in {thread.name for thread in threading.enumerate()}


def test_a_burst_during_a_call_becomes_one_more_call(receiver: Receiver, coalescer: Coalescer) -> None:
    receiver.gate.clear()
    coalescer.request()
    receiver.wait_for_call()
    for _ in range(100):
        coalescer.request()  # returns, though the call does not
    receiver.gate.set()
    wait_until(is_quiet, "the end of the burst")
    assert receiver.calls == 2


def test_a_call_sees_what_was_written_before_its_request(receiver: Receiver, coalescer: Coalescer) -> None:
    receiver.gate.clear()
    for number in (1, 2):
        receiver.written = number
        coalescer.request()
        if number == 1:
            receiver.wait_for_call()
    receiver.gate.set()
    wait_until(is_quiet, "the end of the burst")
    assert receiver.seen == [1, 2]


def test_no_thread_is_left_when_there_are_no_requests(receiver: Receiver, coalescer: Coalescer) -> None:
    for calls in (1, 2):
        coalescer.request()
        wait_until(is_quiet, "the end of the thread")
        assert receiver.calls == calls


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_request_after_a_call_that_failed_makes_a_call(receiver: Receiver) -> None:
    failures = iter([ValueError("odd")])

    def send() -> None:
        for failure in failures:
            raise failure
        receiver()

    coalescer = Coalescer(NAME, send, pause=0.001)
    coalescer.request()
    wait_until(is_quiet, "the end of the thread that failed")
    coalescer.request()
    wait_until(lambda: receiver.calls == 1, "the call")

"""Steps made ahead: their order, what goes wrong in its place, and an end for whoever leaves early."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.patience import patient
from workers.runs.prefetch import STEPS, ahead


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def test_they_come_in_their_order_and_all(threads: ThreadPoolExecutor) -> None:
    with ahead(threads, (number for number in range(50))) as steps:
        assert list(steps) == list(range(50))


def test_what_a_step_raises_comes_in_its_place(threads: ThreadPoolExecutor) -> None:
    def broken() -> Generator[int]:
        yield 1
        raise ConnectionError("the host is gone")

    with ahead(threads, broken()) as steps:
        assert next(steps) == 1
        with pytest.raises(ConnectionError, match="the host is gone"):
            next(steps)


def test_few_are_made_before_they_are_wanted_and_none_for_whoever_has_left(threads: ThreadPoolExecutor) -> None:
    begun: list[int] = []
    enough = threading.Event()

    def counted() -> Generator[int]:
        for number in range(100):
            begun.append(number)
            if number == STEPS:
                enough.set()
            yield number

    with ahead(threads, counted()) as steps:
        assert next(steps) == 0 and enough.wait(patient(5))
    threads.shutdown(wait=True)  # the thread is free: it waits for nobody
    assert len(begun) == STEPS + 1

"""Prefetch keeps the order, raises an error in its place, and stops early when the block ends."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.patience import patient
from workers.runs.prefetch import ITEMS, prefetch


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def test_all_items_come_in_their_order(threads: ThreadPoolExecutor) -> None:
    with prefetch(threads, (number for number in range(50))) as items:
        assert list(items) == list(range(50))


def test_an_error_comes_in_the_place_of_its_item(threads: ThreadPoolExecutor) -> None:
    def broken() -> Generator[int]:
        yield 1
        raise ConnectionError("the host is gone")

    with prefetch(threads, broken()) as items:
        assert next(items) == 1
        with pytest.raises(ConnectionError, match="the host is gone"):
            next(items)


def test_few_items_are_made_in_advance_and_none_after_the_block(threads: ThreadPoolExecutor) -> None:
    begun: list[int] = []
    enough = threading.Event()

    def counted() -> Generator[int]:
        for number in range(100):
            begun.append(number)
            if number == ITEMS:
                enough.set()
            yield number

    with prefetch(threads, counted()) as items:
        assert next(items) == 0 and enough.wait(patient(5))
    threads.shutdown(wait=True)  # the thread is free: it waits for nobody
    assert len(begun) == ITEMS + 1

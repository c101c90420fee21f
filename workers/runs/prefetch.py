"""Prefetch: computes the next items of a generator in another thread, so that a fetch goes on during a write."""

from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore
from typing import TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()
ITEMS = 2  # prefetched at most: each may hold megabytes


@contextmanager
def prefetch(threads: Executor, items: Generator[T]) -> Iterator[Iterator[T]]:
    """The same items in the same order; an error comes in the place of its item.

    After the block ends, the item that is being computed is finished, and no other is begun.
    """
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    room, is_over = Semaphore(ITEMS), False

    def produce() -> None:
        try:
            while room.acquire() and not is_over:
                made.put((next(items), None))
        except BaseException as why:  # raised again by `consume`; StopIteration ends it
            made.put((None, why))
            if is_over and not isinstance(why, StopIteration):
                log.warning("a prefetch failed that is no longer needed", why=str(why))

    def consume() -> Iterator[T]:
        while True:
            item, why = made.get()
            if isinstance(why, StopIteration):
                return
            if why is not None:
                raise why
            room.release()
            yield item  # type: ignore[misc]

    threads.submit(produce)
    try:
        yield consume()
    finally:
        is_over = True
        room.release()

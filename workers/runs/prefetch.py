"""Makes the next steps of something in another thread while one is worked on: a fetch goes on during a write."""

from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore
from typing import TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()
STEPS = 2  # that wait to be taken at most: one for whoever is late, each may hold megabytes


@contextmanager
def ahead(threads: Executor, steps: Generator[T]) -> Iterator[Iterator[T]]:
    """The same steps, in their order; what a step raises comes in its place. Whoever leaves before the last one lets
    the step that is being made come to its end, and no other begins."""
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    room, left = Semaphore(STEPS), False

    def make() -> None:
        try:
            while room.acquire() and not left:
                made.put((next(steps), None))
        except BaseException as why:  # raised where the step is wanted; StopIteration ends them
            made.put((None, why))
            if left and not isinstance(why, StopIteration):
                log.warning("what was asked for ahead went wrong, and nobody waited for it", why=str(why))

    def taken() -> Iterator[T]:
        while True:
            step, why = made.get()
            if isinstance(why, StopIteration):
                return
            if why is not None:
                raise why
            room.release()
            yield step  # type: ignore[misc]

    threads.submit(make)
    try:
        yield taken()
    finally:
        left = True
        room.release()

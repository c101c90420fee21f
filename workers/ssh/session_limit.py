"""How many sessions may be open at once on a connection, as far as its host has let us know."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from workers.errors import Unreachable

MOST_ALONE = 8  # refusals while no other session of ours is open


class Room:
    """How many sessions may be open at once on a connection; less where the host says so."""

    def __init__(self, most: int) -> None:
        self.most, self._open, self.ended, self._news = most, 0, 0, threading.Condition()

    @contextmanager
    def taken(self, until: float) -> Iterator[None]:
        with self._news:
            if not self._news.wait_for(lambda: self._open < self.most, max(0.0, until - time.monotonic())):
                raise Unreachable("all its sessions are busy")
            self._open += 1
        try:
            yield
        finally:
            with self._news:
                self._open -= 1
                self._news.notify_all()

    def tries(self, until: float) -> Iterator[int]:
        """Try, and after each refusal again with less at once: when one of ours has ended, or a little later, since the
        host may not have noticed yet. Where none of ours is open, it is no use for long."""
        alone, seen = 0, self.ended
        for number in itertools.count():
            yield number
            with self._news:
                alone = 0 if self._open or seen != self.ended else alone + 1
                seen = self.ended
                self.most = max(1, self._open)
                left = until - time.monotonic()
                if alone > MOST_ALONE or left <= 0:
                    return
                # Others that were refused are no news: woken by them, all of us would be refused again at once.
                self._news.wait_for(partial(self._has_ended_since, seen), min(left, 0.02 * 2 ** min(number, 5)))

    def _has_ended_since(self, count: int) -> bool:
        return self.ended != count

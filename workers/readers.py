"""Output readers: the parser of each followed run, and how far it has read; the least recently used are dropped."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.clis.parser import Parser
from app.clis.template import CliTemplate


@dataclass
class OutputReader:
    """The parser of one run's output. Hold `lock` while using it."""

    parser: Parser
    template: CliTemplate
    offset: int = 0  # of stdout, up to which it has read
    session_notes: str | None = None  # what the CLI wrote to its session file, as read last
    saved: dict[str, Any] = field(default_factory=dict)  # the progress that was stored last
    lock: Any = field(default_factory=threading.Lock)
    next_budget_check: float = 0.0  # monotonic time


class OutputReaders:
    """The readers of this process by run id, at most `most`. A dropped one is made again from the stored log."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._readers: OrderedDict[int, OutputReader] = OrderedDict()

    def get(self, run_id: int, make: Callable[[], OutputReader]) -> OutputReader:
        with self._lock:
            if run_id in self._readers:
                self._readers.move_to_end(run_id)
                return self._readers[run_id]
        made = make()
        with self._lock:
            reader = self._readers.setdefault(run_id, made)
            while len(self._readers) > self._most:
                self._readers.popitem(last=False)
        return reader

    def drop(self, run_id: int) -> None:
        with self._lock:
            self._readers.pop(run_id, None)

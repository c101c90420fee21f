"""Injects faults: webhooks lost, doubled, late, shuffled; responses refused, cut or hanging."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One thing that goes wrong with the next matching call, `left` times."""

    method: str
    path: re.Pattern[str]
    what: int | str
    left: int
    retry_after: int | None = None

    @property
    def after_doing(self) -> bool:
        return isinstance(self.what, str) and self.what.endswith("-after-doing")


@dataclass
class Faults:
    webhooks_off: bool = False
    double: bool = False
    delay: float = 0.0
    shuffle: bool = False
    dropped_kinds: dict[str, int] = field(default_factory=dict)
    waiting: list[Fault] = field(default_factory=list)
    hang_seconds: float = 60.0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def drop(self, kind: str, times: int = 1_000_000) -> None:
        """Lose deliveries of this Event-Type ("issue_label"), "type/action", or "*" for all."""
        self.dropped_kinds[kind] = times

    def next(
        self, method: str, path_regex: str, what: int | str, times: int = 1, retry_after: int | None = None
    ) -> None:
        """The next `times` calls that match go wrong. `what` is a status (nothing is done), "cut" (nothing is
        done, the connection breaks), "cut-after-doing", "hang-after-doing", or "502-after-doing"."""
        with self.lock:
            self.waiting.append(Fault(method.upper(), re.compile(path_regex), what, times, retry_after))

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.waiting:
                if fault.left > 0 and fault.method in (method, "*") and fault.path.search(path):
                    fault.left -= 1
                    return fault
        return None

    def lost(self, event_type: str, action: str) -> bool:
        with self.lock:
            for kind in (event_type, f"{event_type}/{action}", "*"):
                if self.dropped_kinds.get(kind, 0) > 0:
                    self.dropped_kinds[kind] -= 1
                    return True
        return self.webhooks_off

    def hang(self) -> None:
        """Keep a call open until the test clears the faults, or for `hang_seconds`."""
        self.released.wait(self.hang_seconds)

    def clear(self) -> None:
        """All is well again, and calls that hang end now."""
        self.webhooks_off = self.double = self.shuffle = False
        self.delay = 0.0
        with self.lock:
            self.dropped_kinds.clear()
            self.waiting.clear()
        self.released.set()
        self.released = threading.Event()

"""The lines that this process keeps, one a host: made when needed, made anew when broken, rested when they fail."""

import json
import os
import threading
from collections.abc import Mapping, Set
from typing import Any

from app.domain.place import Fitness
from app.store.tables import Row
from workers import footing
from workers.away import Distrusted, LeftAlone, Unreachable
from workers.breaker import Breaker
from workers.connect import Address, Limits
from workers.footing import Footing
from workers.ssh import Line, NotAsked

MOST = 64 << 20  # bytes of an answer: a poll brings a piece of each log, base64
SECONDS = {"start": 40.0, "poll": 20.0, "cancel": 30.0, "release": 180.0, "probe": 20.0}
CONNECTING_SECS = 3.0  # how long one caller waits for another that connects: longer, and a dead host holds up threads


class Kept:
    """The line to one host, shared by the threads of this process."""

    def __init__(self, address: Address, limits: Limits | None = None, seconds: Mapping[str, float] = SECONDS) -> None:
        self._address, self._limits, self._seconds = address, limits or Limits(), seconds
        self._connecting, self.breaker = threading.Lock(), Breaker()
        self._line: Line | None = None
        self._footing: Footing | None = None
        self._pushed: dict[str, str] = {}
        self.is_distrusted = False

    def ask(self, verb: str, request: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """What the supervisor answers to a verb. What may have arrived is not said twice. Raises Unreachable,
        Distrusted, and LeftAlone where the host failed just before."""
        try:
            return self._ask(verb, request)
        except NotAsked:  # the connection had died since it was used last
            pass
        try:
            return self._ask(verb, request)
        except NotAsked as why:
            self.breaker.failed(str(why))
            raise

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _ask(self, verb: str, request: Mapping[str, Any]) -> tuple[bytes, bytes]:
        left = self.breaker.pause()
        if left:
            raise self._left_alone(left)
        line = self._open_line()
        try:
            said = self._said(line, verb, request)
            if said[0].startswith(footing.GONE):  # somebody cleaned up there
                self._pushed.clear()
                said = self._said(line, verb, request)
        except NotAsked:
            raise
        except Unreachable as why:
            self.breaker.failed(str(why))
            raise
        self.breaker.worked()
        return said

    def _said(self, line: Line, verb: str, request: Mapping[str, Any]) -> tuple[bytes, bytes]:
        found = self._footing = self._footing or footing.survey(line)
        home = str(request["home"])
        if home not in self._pushed:
            self._pushed[home] = footing.push(line, found, home)
        whole = json.dumps({**request, "path": found.path}).encode()
        return line.run(footing.command(found, self._pushed[home], verb), whole, MOST, self._seconds.get(verb))

    def _open_line(self) -> Line:
        line = self._line
        if line is not None and line.is_open:
            return line
        failures = self.breaker.failures
        if not self._connecting.acquire(timeout=CONNECTING_SECS):
            raise LeftAlone("another thread is connecting to it")
        try:
            if self.breaker.failures > failures:  # the one we waited for could not
                raise self._left_alone(self.breaker.pause())
            if self._line is None or not self._line.is_open:
                self._line = self._connected()
            return self._line
        finally:
            self._connecting.release()

    def _connected(self) -> Line:
        """One attempt at a time a process, with growing pauses: far below what sshd's MaxStartups lets in."""
        self.close()
        self._footing, self._pushed = None, {}
        try:
            return Line(self._address, self._limits)
        except Unreachable as why:
            self.is_distrusted = isinstance(why, Distrusted)
            self.breaker.failed(str(why), longest=self.is_distrusted)
            raise

    def _left_alone(self, left: float) -> LeftAlone:
        return LeftAlone(f"{self.breaker.why}; it is asked again in {left:.0f} s")


def to(host: Row) -> Kept:
    """The line to a host; another one when its address or keys are declared anew, and when an operator lets it work
    again that was not to be trusted."""
    address, since = address_of(host), host.get("since")
    with _lock:
        known, told, kept = _kept.get(host["host_id"], (None, None, None))
        resumed = kept and kept.is_distrusted and host["fitness"] == Fitness.UNKNOWN and told != since
        if kept is None or known != address or resumed:
            if kept is not None:
                kept.close()
            kept = Kept(address)
            _kept[host["host_id"]] = (address, since, kept)
        return kept


def address_of(host: Any) -> Address:
    """Where a host's row says that it is, and the host it is reached over."""
    reach = host["reach"]
    via = {"hostname": host["via_hostname"], "reach": host["via_reach"]} if host.get("via_reach") else None
    keys = tuple(line for line in (reach.get("host_key") or "").splitlines() if line.strip())
    return Address(
        host["hostname"], reach.get("ssh_port") or 22, reach.get("ssh_user"), reach.get("ssh_key_path"), keys,
        address_of(via) if via else None,
    )  # fmt: skip


def keep_only(host_ids: Set[str]) -> None:
    """Close the lines to all other hosts: nobody goes there any more."""
    with _lock:
        for host_id in _kept.keys() - host_ids:
            _kept.pop(host_id)[2].close()


def forget() -> None:
    """Close every line: for the end of a process, and of a test."""
    keep_only(frozenset())


_kept: dict[str, tuple[Address, Any, Kept]] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    """The child's threads do not read from its parent's connections: it makes its own, and says nothing on those."""
    global _lock  # noqa: PLW0603 - it may have been held at the fork
    _lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork)

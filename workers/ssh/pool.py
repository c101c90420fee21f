"""The lines that this process keeps, one a host: made when needed, made anew when broken, rested when they fail."""

import json
import os
import threading
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NoReturn

from app.domain.host import Fitness
from app.store.tables import Row
from workers.errors import Distrusted, LeftAlone, Unreachable
from workers.protocol import Answer, Json, frame
from workers.ssh import bootstrap
from workers.ssh.bootstrap import Footing
from workers.ssh.circuit_breaker import Breaker
from workers.ssh.client import Line, NotAsked
from workers.ssh.connection import Address, Limits
from workers.supervisor import bundle

MOST = 64 << 20  # bytes of an answer: a poll brings a piece of each log
SECONDS = {"start": 40.0, "poll": 20.0, "cancel": 30.0, "release": 180.0, "probe": 20.0}
IDLE_SECS = 90.0  # how long a supervisor waits on a line for its next request
CONNECTING_SECS = 5.0  # how long one caller waits for another that connects: longer, and a dead host holds up threads


@dataclass(frozen=True)
class Ready:
    """A line over which the supervisor can be asked: what is there to stand on, and where it lies."""

    line: Line
    footing: Footing
    home: str
    supervisor: str


class Kept:
    """The line to one host, shared by the threads of this process."""

    def __init__(self, address: Address, limits: Limits | None = None, seconds: Mapping[str, float] = SECONDS) -> None:
        self._address, self._limits, self._seconds = address, limits or Limits(), seconds
        self._connecting, self.breaker = threading.Lock(), Breaker()
        self._ready: Ready | None = None
        self.is_distrusted = False

    def ask(self, verb: str, request: Mapping[str, Any]) -> Json:
        """What the supervisor answers to a verb. What may have arrived is not said twice, unless that does no harm.
        Raises Unreachable, Distrusted, and LeftAlone where the host failed just before."""
        try:
            return self._ask(verb, request)
        except NotAsked:  # the connection or the session had died since it was used last, and perhaps others with it
            self.hang_up(0)
        try:
            return self._ask(verb, request)
        except NotAsked as why:
            self._failed(why)
            raise

    def close(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.line.close()

    @property
    def is_ready(self) -> bool:
        ready = self._ready
        return ready is not None and ready.line.is_open

    def hang_up(self, secs: float = IDLE_SECS) -> None:
        """End the sessions that nobody has used for so long; the connection stays."""
        ready = self._ready
        if ready is not None:
            ready.line.hang_up(secs)

    def _ask(self, verb: str, request: Mapping[str, Any]) -> Json:
        left = self.breaker.pause()
        if left:
            raise self._left_alone(left)
        ready = self._made_ready(str(request["home"]))
        whole = json.dumps({**request, "path": ready.footing.path}).encode()
        command, answer = bootstrap.command(ready.footing, ready.supervisor, "serve"), Answer(MOST)
        try:
            secs = self._seconds.get(verb)
            trouble = ready.line.ask(command, frame(verb, whole), answer, secs, harmless=verb != "start")
        except NotAsked:
            raise
        except Unreachable as why:
            self._failed(why)
            raise
        self.breaker.worked()
        return answer.told() if answer.is_whole else self._given_up(answer, trouble)

    def _given_up(self, answer: Answer, trouble: bytes) -> NoReturn:
        """Without a supervisor or an answer of it, what we knew of the host is true no longer."""
        self.close()
        if bootstrap.GONE in answer.said:
            raise NotAsked("its supervisor is gone")
        raise Unreachable(f"it gave no answer: {bundle.annotate(trouble[-500:].decode(errors='replace'))}")

    def _made_ready(self, home: str) -> Ready:
        """One attempt at a time a process, with growing pauses: far below what sshd's MaxStartups lets in."""
        if ready := self._is_ready(home):
            return ready
        failures = self.breaker.failures
        if not self._connecting.acquire(timeout=CONNECTING_SECS):
            raise LeftAlone("another thread is connecting to it")
        try:
            if self.breaker.failures > failures:  # the one we waited for could not
                raise self._left_alone(self.breaker.pause())
            ready = self._is_ready(home)
            if ready is None:
                self.close()
                ready = self._ready = self._connected(home)
            return ready
        finally:
            self._connecting.release()

    def _is_ready(self, home: str) -> Ready | None:
        ready = self._ready
        return ready if ready is not None and ready.home == home and ready.line.is_open else None

    def _connected(self, home: str) -> Ready:
        line = None
        try:
            line = Line(self._address, self._limits)
            found = bootstrap.survey(line)
            return Ready(line, found, home, bootstrap.push(line, found, home))
        except Unreachable as why:
            if line is not None:
                line.close()
            self._failed(why)
            raise

    def _failed(self, why: Unreachable) -> None:
        self.is_distrusted = isinstance(why, Distrusted)
        self.breaker.failed(str(why), longest=self.is_distrusted)

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
    """Close the lines to all other hosts: nobody goes there any more. On those that stay nobody waits in vain."""
    with _lock:
        for host_id in _kept.keys() - host_ids:
            _kept.pop(host_id)[2].close()
        left = [kept for _, _, kept in _kept.values()]
    for kept in left:
        kept.hang_up()


def is_open_to(host_id: str) -> bool:
    """Whether this process has a line there, and it is open as far as we know."""
    with _lock:
        known = _kept.get(host_id)
    return known is not None and known[2].is_ready


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

"""Connection pool: one SSH connection per host, opened on demand, reopened when broken, backed off after failures."""

import json
import threading
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from app.domain.host import Address, Fitness, Machine
from workers.errors import NotContacted, NotSent, Unreachable, Untrusted
from workers.protocol import MOST_BYTES, Answer, frame
from workers.ssh import bootstrap
from workers.ssh.bootstrap import Environment
from workers.ssh.circuit_breaker import CircuitBreaker
from workers.ssh.client import SshClient
from workers.ssh.connection import Timeouts
from workers.ssh.deadlines import Deadlines
from workers.supervisor import bundle
from workers.supervisor_messages import Body, SupervisorAnswer

VERB_SECS = {"start": 40.0, "poll": 20.0, "cancel": 30.0, "release": 180.0, "probe": 20.0}
IDLE_SECS = 90.0  # an idle supervisor on a host is ended after this
CONNECTING_SECS = 5.0  # a caller waits this long for another that connects: longer, and a dead host blocks many threads


@dataclass(frozen=True)
class SshLimits:
    """Seconds that a step of a connection and each verb of the supervisor may take."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    verbs: Mapping[str, float] = field(default_factory=lambda: VERB_SECS)


@dataclass(frozen=True)
class Bootstrapped:
    """A connection to a host that has our supervisor."""

    client: SshClient
    environment: Environment
    work_dir: str
    supervisor: str  # its path on the host


class HostConnection:
    """The connection to one host, shared by the threads of this process."""

    def __init__(self, address: Address, deadlines: Deadlines, limits: SshLimits | None = None) -> None:
        self.address, self._deadlines, self._limits = address, deadlines, limits or SshLimits()
        self._connecting, self.breaker = threading.Lock(), CircuitBreaker()
        self._current: Bootstrapped | None = None
        self.is_untrusted = False

    def request(self, verb: str, body: Body) -> SupervisorAnswer:
        """Send one request to the host's supervisor; returns its answer.

        A request that may have arrived is sent again only if that does no harm. Raises Unreachable, Untrusted, and
        NotContacted if the host failed a moment ago.
        """
        try:
            return self._request(verb, body)
        except NotSent:  # the connection or the session had ended, perhaps others with it
            self.close_idle_sessions(0)
        try:
            return self._request(verb, body)
        except NotSent as why:
            self._note_failure(why)
            raise

    def close(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.client.close()

    @property
    def is_open(self) -> bool:
        current = self._current
        return current is not None and current.client.is_open

    def close_idle_sessions(self, secs: float = IDLE_SECS) -> None:
        """Close the sessions that were not used for `secs`; the connection stays."""
        current = self._current
        if current is not None:
            current.client.close_idle_sessions(secs)

    def _request(self, verb: str, body: Body) -> SupervisorAnswer:
        wait = self.breaker.seconds_to_wait()
        if wait:
            raise self._not_contacted(wait)
        current = self._bootstrapped(str(body["home"]))
        request = frame(verb, json.dumps({**body, "path": current.environment.path}).encode())
        command = bootstrap.supervisor_command(current.environment, current.supervisor, "serve")
        answer, secs = Answer(MOST_BYTES), self._limits.verbs.get(verb)
        try:
            stderr = current.client.request(command, request, answer, secs, is_repeatable=verb != "start")
        except NotSent:
            raise
        except Unreachable as why:
            self._note_failure(why)
            raise
        self.breaker.succeeded()
        return answer.as_json() if answer.is_whole else self._give_up(answer, stderr)

    def _give_up(self, answer: Answer, stderr: bytes) -> NoReturn:
        """The supervisor is gone or gave no answer: bootstrap the host again before the next request."""
        self.close()
        if bootstrap.GONE in answer.received:
            raise NotSent("its supervisor is gone")
        raise Unreachable(f"it gave no answer: {bundle.annotate(stderr[-500:].decode(errors='replace'))}")

    def _bootstrapped(self, work_dir: str) -> Bootstrapped:
        """The open connection, or a new one. One attempt at a time: far below what sshd's MaxStartups allows."""
        if current := self._if_open(work_dir):
            return current
        failures = self.breaker.failures
        if not self._connecting.acquire(timeout=CONNECTING_SECS):
            raise NotContacted("another thread is connecting to it")
        try:
            if self.breaker.failures > failures:  # the thread that we waited for failed
                raise self._not_contacted(self.breaker.seconds_to_wait())
            current = self._if_open(work_dir)
            if current is None:
                self.close()
                current = self._current = self._connect(work_dir)
            return current
        finally:
            self._connecting.release()

    def _if_open(self, work_dir: str) -> Bootstrapped | None:
        current = self._current
        return current if current is not None and current.work_dir == work_dir and current.client.is_open else None

    def _connect(self, work_dir: str) -> Bootstrapped:
        client = None
        try:
            client = SshClient(self.address, self._deadlines, self._limits.timeouts)
            environment = bootstrap.find_environment(client)
            supervisor = bootstrap.upload_supervisor(client, environment, work_dir)
            return Bootstrapped(client, environment, work_dir, supervisor)
        except Unreachable as why:
            if client is not None:
                client.close()
            self._note_failure(why)
            raise

    def _note_failure(self, why: Unreachable) -> None:
        self.is_untrusted = isinstance(why, Untrusted)
        self.breaker.failed(str(why), longest=self.is_untrusted)

    def _not_contacted(self, wait: float) -> NotContacted:
        return NotContacted(f"{self.breaker.why}; it is asked again in {wait:.0f} s")


class ConnectionPool:
    """The connections of this process, by host id."""

    def __init__(self, deadlines: Deadlines, limits: SshLimits | None = None) -> None:
        self._deadlines, self._limits, self._lock = deadlines, limits or SshLimits(), threading.Lock()
        self._connections: dict[str, tuple[datetime | None, HostConnection]] = {}

    def get(self, machine: Machine) -> HostConnection:
        """The connection to a host.

        A new one if its address or pinned keys changed, and if an operator resumed a host that was untrusted.
        """
        with self._lock:
            since, kept = self._connections.get(machine.host_id, (None, None))
            is_resumed = (
                kept is not None and kept.is_untrusted and machine.fitness is Fitness.UNKNOWN and since != machine.since
            )
            if kept is None or kept.address != machine.address or is_resumed:
                if kept is not None:
                    kept.close()
                kept = HostConnection(machine.address, self._deadlines, self._limits)
                self._connections[machine.host_id] = (machine.since, kept)
            return kept

    def is_open(self, host_id: str) -> bool:
        """True if there is a connection to the host, and it is open as far as we know."""
        with self._lock:
            _, kept = self._connections.get(host_id, (None, None))
        return kept is not None and kept.is_open

    def keep_only(self, host_ids: Set[str]) -> None:
        """Close the connections to all other hosts, and the idle sessions of those that stay."""
        with self._lock:
            for host_id in self._connections.keys() - host_ids:
                self._connections.pop(host_id)[1].close()
            left = [kept for _, kept in self._connections.values()]
        for kept in left:
            kept.close_idle_sessions()

    def close(self) -> None:
        self.keep_only(frozenset())

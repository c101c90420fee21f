"""Calls the supervisor on a host: `localhost` over pipes, all others over SSH; reports hosts that fail.

When a host does not answer: `request` raises Unreachable and calls `on_failure` (workers/hosts/probe.py). That makes
the host unfit, or quarantines it if it is untrusted. The connection then backs off (workers/ssh/circuit_breaker.py).
"""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.host import Fitness, Machine
from workers.errors import NotContacted, Unable, Unreachable
from workers.hosts.local import ANSWER_SECS, LocalSupervisors
from workers.ssh.deadlines import Deadlines
from workers.supervisor_messages import Body, SupervisorAnswer

if TYPE_CHECKING:
    from workers.ssh.pool import ConnectionPool, SshLimits

REMOTE_HOME = "~/.agent-fleet"
OnFailure = Callable[[Machine, Unreachable], None]


@dataclass(frozen=True)
class HostLimits:
    """Seconds that requests may take: to this machine, and over SSH (None: the defaults of workers/ssh/pool.py)."""

    local_secs: float = ANSWER_SECS
    ssh: "SshLimits | None" = None


class HostClient:
    """Sends requests to the supervisors of hosts. Several threads may use it at once.

    `local_home` is our folder on this machine, unless the host declares a work_dir; `instance` is our name on hosts.
    """

    def __init__(
        self,
        local_home: Path,
        instance: Callable[[], str],
        on_failure: OnFailure = lambda _machine, _why: None,
        limits: HostLimits | None = None,
    ) -> None:
        self._local_home, self._instance, self._on_failure = local_home, instance, on_failure
        self._limits = limits or HostLimits()
        self.deadlines = Deadlines()
        self.local = LocalSupervisors(self.deadlines, self._limits.local_secs)
        self._pool: ConnectionPool | None = None

    def request(self, machine: Machine, verb: str, body: Body) -> SupervisorAnswer:
        """Send one request to the supervisor of a host; returns its answer. Adds `home` and `instance` to `body`.

        Raises Unreachable, and Unable if the host answers that it could not carry it out.
        """
        if machine.fitness is Fitness.QUARANTINED:
            raise NotContacted(f"{machine.host_id} is in quarantine, and is not asked: {machine.why}")
        whole = {"home": self.home(machine), "instance": self._instance(), **body}
        try:
            answer = self._send(machine, verb, whole)
        except Unreachable as why:
            self._report(machine, why)
            raise type(why)(f"{machine.host_id} did not answer `{verb}`: {why}") from why
        if "error" in answer:
            raise Unable(f"{machine.host_id} could not `{verb}`: {answer['error']}")
        return answer

    def home(self, machine: Machine) -> str:
        """Our folder on the host; may begin with `~`."""
        return machine.work_dir or (str(self._local_home) if machine.is_local else REMOTE_HOME)

    def keep_only(self, host_ids: Set[str]) -> None:
        """Close the connections to all other hosts."""
        if self._pool is not None:
            self._pool.keep_only(host_ids)

    def without_connection(self, host_ids: Iterable[str]) -> list[str]:
        """Those of these hosts to which this process has no open SSH connection."""
        return [host_id for host_id in host_ids if self._pool is None or not self._pool.is_open(host_id)]

    @property
    def pool(self) -> "ConnectionPool":
        """Imported when first needed: a fleet of localhost alone saves the 20 MB of paramiko."""
        if self._pool is None:
            from workers.ssh.pool import ConnectionPool  # noqa: PLC0415 - see above

            self._pool = ConnectionPool(self.deadlines, self._limits.ssh)
        return self._pool

    def close(self) -> None:
        """Close every connection and end the idle supervisors of this machine."""
        if self._pool is not None:
            self._pool.close()
        self.local.close()
        self.deadlines.close()

    def _send(self, machine: Machine, verb: str, body: Body) -> SupervisorAnswer:
        if machine.is_local:
            return self.local.request(verb, body)
        return self.pool.get(machine).request(verb, body)

    def _report(self, machine: Machine, why: Unreachable) -> None:
        """Hosts that were not contacted say nothing new; this machine is never unfit for a failed request."""
        if not machine.is_local and not isinstance(why, NotContacted):
            self._on_failure(machine, why)

"""Agents that pull work, and the enrolment tokens they register with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Registration:
    """What an agent says of itself when it registers."""

    agent_id: str
    agent_type: str  # the CLI that it runs
    hostname: str
    capabilities: tuple[str, ...]
    max_concurrency: int = 1  # tasks at the same time
    metadata: Mapping[str, Any] = field(default_factory=dict)  # its own JSON


@dataclass(frozen=True)
class Agent:
    """A registered agent."""

    agent_id: str
    agent_type: str
    hostname: str
    capabilities: tuple[str, ...]
    max_concurrency: int
    metadata: Mapping[str, Any]
    registered_at: datetime
    seen_at: datetime  # its last heartbeat or dequeue
    gone_at: datetime | None = None  # it deregistered
    revoked_at: datetime | None = None

    @property
    def is_present(self) -> bool:
        """True if it may take work: it has neither left nor been revoked."""
        return self.gone_at is None and self.revoked_at is None

    def cli_version(self, cli: str | None) -> str | None:
        """The version of a CLI that it registered with (`metadata.clis`), if it told one."""
        clis = self.metadata.get("clis")
        found = clis.get(cli) if isinstance(clis, Mapping) else None
        return found[:200] if isinstance(found, str) else None


@dataclass(frozen=True)
class ListedAgent:
    """An agent with the ids of the tasks that it holds."""

    agent: Agent
    tasks: tuple[str, ...]

    def is_online(self, silent_since: datetime) -> bool:
        return self.agent.seen_at > silent_since and self.agent.gone_at is None


@dataclass(frozen=True)
class EnrolmentToken:
    """A token that agents register with; only its hash is stored."""

    name: str
    uses: int
    made_at: datetime
    used_at: datetime | None  # the last time
    expires_at: datetime | None
    revoked_at: datetime | None

    def status(self, at: datetime) -> str:
        is_expired = self.expires_at is not None and self.expires_at <= at
        return "revoked" if self.revoked_at else "expired" if is_expired else "in force"

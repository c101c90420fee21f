"""A place where work can happen: a host we reach, with slots for each kind of CLI."""

from dataclasses import dataclass
from enum import StrEnum


class Fitness(StrEnum):
    """Whether a host may get work, and if not, what kind of reason it is."""

    UNKNOWN = "unknown"
    FIT = "fit"
    UNFIT = "unfit"
    DRAINING = "draining"
    DRAINED = "drained"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Slots:
    """Room for one kind of CLI on a host: how many runs at once, how many now, and what it can do."""

    agent_type: str
    max_concurrency: int
    capabilities: frozenset[str]
    taken: int = 0
    closed: str | None = None  # why nobody may use them now, though there is room

    @property
    def free(self) -> int:
        return 0 if self.closed else max(0, self.max_concurrency - self.taken)


@dataclass(frozen=True)
class Host:
    """A machine of ours. `hostname` is `localhost` for a local process without SSH."""

    host_id: str
    hostname: str
    slots: tuple[Slots, ...]
    fitness: Fitness = Fitness.UNKNOWN
    why: str | None = None
    work_dir: str | None = None

    @property
    def takes_work(self) -> bool:
        """A host nobody has looked at yet is tried: its first run is its probe."""
        return self.fitness in (Fitness.FIT, Fitness.UNKNOWN)

    @property
    def share_taken(self) -> float:
        """Taken slots over all slots, 0.0 to 1.0."""
        return sum(s.taken for s in self.slots) / max(1, sum(s.max_concurrency for s in self.slots))

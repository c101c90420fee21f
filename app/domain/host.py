"""A place where work can happen: a host we reach, with slots for each kind of CLI, and what a look at it showed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import isfinite
from typing import Any

from app.domain.visible_text import one_line


class Fitness(StrEnum):
    """Whether a host may get work, and if not, what kind of reason it is."""

    UNKNOWN = "unknown"
    FIT = "fit"
    UNFIT = "unfit"
    DRAINING = "draining"
    DRAINED = "drained"
    QUARANTINED = "quarantined"


class Origin(StrEnum):
    """Who named a host: fleet.toml, which may also stop naming it, or a command."""

    DECLARED = "declared"
    ADDED = "added"


@dataclass(frozen=True)
class Slots:
    """Room for one kind of CLI on a host: how many runs at once, how many now, and what it can do. `missing`: the last
    look did not find the CLI there."""

    agent_type: str
    max_concurrency: int
    capabilities: frozenset[str]
    taken: int = 0
    missing: bool = False
    closed: str | None = None  # why nobody may use them now, though there is room

    @property
    def free(self) -> int:
        return 0 if self.closed else max(0, self.max_concurrency - self.taken)


@dataclass(frozen=True)
class Host:
    """A machine of ours. `hostname` is `localhost` for a process here, without SSH; `probe` is what a look showed."""

    host_id: str
    hostname: str
    slots: tuple[Slots, ...]
    fitness: Fitness = Fitness.UNKNOWN
    why: str | None = None
    work_dir: str | None = None
    since: datetime | None = None
    origin: Origin = Origin.DECLARED
    labels: tuple[str, ...] = ()
    probe: Mapping[str, Any] | None = None
    probed_at: datetime | None = None

    @property
    def is_local(self) -> bool:
        return self.hostname == "localhost"

    @property
    def takes_work(self) -> bool:
        """A host nobody has looked at yet takes no work that an agent could have had; this machine can be trusted to
        be there, and its first run is its probe."""
        return self.fitness is Fitness.FIT or (self.fitness is Fitness.UNKNOWN and self.is_local)

    @property
    def lacks_lfs(self) -> bool:
        """The last look found no git-lfs there; where nobody looked nobody knows."""
        return (self.probe or {}).get("lfs") is False

    @property
    def share_taken(self) -> float:
        """Taken slots over all slots, 0.0 to 1.0."""
        return sum(s.taken for s in self.slots) / max(1, sum(s.max_concurrency for s in self.slots))

    @property
    def load(self) -> float:
        """How many processes wanted each CPU at the last look; 0.0 if nobody looked."""
        return float((self.probe or {}).get("load_per_cpu") or 0.0)


Figures = dict[str, Any]


def figures(answer: Mapping[str, Any], clock_offset: float, round_trip: float) -> Figures:
    """What a host answered to a probe, as it can be kept and shown, whatever it answered."""
    load, cpus = answer.get("load"), _number(answer.get("cpus")) or 1
    clis = answer.get("clis") if isinstance(answer.get("clis"), dict) else {}
    missing = answer.get("missing") if isinstance(answer.get("missing"), list) else []
    return {
        "clock_offset": round(clock_offset, 3),
        "round_trip": round(round_trip, 4),
        "boot_id": _words(answer.get("boot_id")),
        "git": _words(answer.get("git")),
        "python": _words(answer.get("python")),
        "disk_free": _number(answer.get("disk_free")),
        "memory_available": _number(answer.get("memory_available")),
        "cpus": cpus,
        "load_per_cpu": round((_number(load[0]) or 0) / cpus, 2) if isinstance(load, list) and load else None,
        "clis": {str(name)[:100]: _words(version) for name, version in (clis or {}).items()},
        "missing": [str(name)[:100] for name in missing or []],
        "lfs": answer["lfs"] if isinstance(answer.get("lfs"), bool) else None,
        "apart": answer["apart"] if isinstance(answer.get("apart"), bool) else None,
    }


def judge(seen: Figures, least_disk: int, most_load: float) -> tuple[Fitness, str | None]:
    """Whether a host that showed this may get work, and if not why."""
    disk, load = seen["disk_free"], seen["load_per_cpu"] or 0
    if not seen["git"]:
        return Fitness.UNFIT, "git is missing there: install it"
    if disk is not None and disk < least_disk:
        return Fitness.UNFIT, f"only {disk >> 20} MB of disk are free there, and {least_disk >> 20} are the least"
    if load > most_load:
        return Fitness.UNFIT, f"its load is {load:.1f} a CPU, and {most_load:g} is the most"
    return Fitness.FIT, None


def _words(value: object) -> str | None:
    return one_line(value, 200) if isinstance(value, str) else None


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None

"""Hosts: machines reached over SSH, their slots for each kind of CLI, and what the last probe found there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import isfinite
from typing import Any

from app.domain.visible_text import one_line

LOCALHOST = "localhost"


class Fitness(StrEnum):
    """Whether a host may get work, and if not, why. Set by probes, by failed requests and by operators."""

    UNKNOWN = "unknown"
    FIT = "fit"
    UNFIT = "unfit"
    DRAINING = "draining"
    DRAINED = "drained"
    QUARANTINED = "quarantined"


class Origin(StrEnum):
    """Who declared a host: fleet.toml, or an operator's command. Only fleet.toml can take its hosts back."""

    DECLARED = "declared"
    ADDED = "added"


@dataclass(frozen=True)
class Address:
    """How to log in to a machine over SSH. `localhost` is this machine: no SSH."""

    hostname: str
    port: int = 22
    user: str | None = None
    key_path: str | None = None  # of the private key, on the workers; or `agent`
    host_keys: tuple[str, ...] = ()  # pinned: lines of known_hosts without the host
    jump: "Address | None" = None  # of the host that this one is reached over

    @property
    def is_local(self) -> bool:
        return self.hostname == LOCALHOST


@dataclass(frozen=True)
class Slots:
    """Slots for one kind of CLI on a host."""

    agent_type: str
    max_concurrency: int
    capabilities: frozenset[str]
    taken: int = 0
    missing: bool = False  # the last probe did not find the CLI
    closed: str | None = None  # why no run may use a slot now, though one is free

    @property
    def free(self) -> int:
        return 0 if self.closed else max(0, self.max_concurrency - self.taken)


@dataclass(frozen=True)
class Probe:
    """What a host answered to a probe; None where it did not say."""

    clock_offset: float | None = None  # seconds; the host's clock minus ours
    round_trip: float | None = None  # seconds
    boot_id: str | None = None
    git: str | None = None  # version
    python: str | None = None  # version
    disk_free: int | None = None  # bytes
    memory_available: int | None = None  # bytes
    cpus: float | None = None
    load_per_cpu: float | None = None  # processes that want each CPU
    clis: Mapping[str, str | None] = field(default_factory=dict)  # version of each CLI
    missing: tuple[str, ...] = ()  # CLIs that are not installed
    lfs: bool | None = None  # git-lfs is installed
    apart: bool | None = None  # the kernel keeps CLIs out of each other's processes

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], clock_offset: float, round_trip: float) -> "Probe":
        """Read a supervisor's answer. Values of the wrong type become None."""
        load, cpus = answer.get("load"), _number(answer.get("cpus")) or 1
        clis = answer.get("clis") if isinstance(answer.get("clis"), dict) else {}
        missing = answer.get("missing") if isinstance(answer.get("missing"), list) else []
        return cls(
            clock_offset=round(clock_offset, 3),
            round_trip=round(round_trip, 4),
            boot_id=_text(answer.get("boot_id")),
            git=_text(answer.get("git")),
            python=_text(answer.get("python")),
            disk_free=_number(answer.get("disk_free")),
            memory_available=_number(answer.get("memory_available")),
            cpus=cpus,
            load_per_cpu=round((_number(load[0]) or 0) / cpus, 2) if isinstance(load, list) and load else None,
            clis={str(name)[:100]: _text(version) for name, version in (clis or {}).items()},
            missing=tuple(str(name)[:100] for name in missing or []),
            lfs=_flag(answer.get("lfs")),
            apart=_flag(answer.get("apart")),
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Probe":
        """Read what `as_json` made, in this version or an earlier one."""
        known = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
        return cls(**known | {"missing": tuple(stored.get("missing") or ()), "clis": stored.get("clis") or {}})

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"clis": dict(self.clis), "missing": list(self.missing)}


@dataclass(frozen=True)
class Machine:
    """A host without its slots: where it is, and in which condition."""

    host_id: str
    address: Address
    fitness: Fitness = Fitness.UNKNOWN
    why: str | None = None  # it is not fit
    work_dir: str | None = None
    since: datetime | None = None  # it has this fitness
    origin: Origin = Origin.DECLARED
    labels: tuple[str, ...] = ()
    probe: Probe | None = None  # the last one that was answered
    probed_at: datetime | None = None
    proxy_jump: str | None = None  # id of the host that this one is reached over
    clis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # changes to the templates of CLIs here

    @property
    def hostname(self) -> str:
        return self.address.hostname

    @property
    def is_local(self) -> bool:
        return self.address.is_local

    @property
    def takes_work(self) -> bool:
        """True if new runs may be placed here. A local host needs no probe first: its first run is the probe."""
        return self.fitness is Fitness.FIT or (self.fitness is Fitness.UNKNOWN and self.is_local)

    @property
    def lacks_lfs(self) -> bool:
        """True if the last probe found no git-lfs. False if no probe has said."""
        return self.probe is not None and self.probe.lfs is False

    @property
    def load(self) -> float:
        """Processes that wanted each CPU at the last probe; 0.0 before the first one."""
        return float((self.probe and self.probe.load_per_cpu) or 0.0)


@dataclass(frozen=True)
class Host(Machine):
    """A machine with its slots: what a task is placed on."""

    slots: tuple[Slots, ...] = ()

    @property
    def share_taken(self) -> float:
        """Taken slots over all slots, 0.0 to 1.0."""
        return sum(s.taken for s in self.slots) / max(1, sum(s.max_concurrency for s in self.slots))


def judge(probe: Probe, least_disk: int, most_load: float) -> tuple[Fitness, str | None]:
    """FIT, or UNFIT and why. `least_disk` is in bytes, `most_load` in processes for each CPU."""
    load = probe.load_per_cpu or 0
    if not probe.git:
        return Fitness.UNFIT, "git is missing there: install it"
    if probe.disk_free is not None and probe.disk_free < least_disk:
        free, least = probe.disk_free >> 20, least_disk >> 20
        return Fitness.UNFIT, f"only {free} MB of disk are free there, and {least} are the least"
    if load > most_load:
        return Fitness.UNFIT, f"its load is {load:.1f} a CPU, and {most_load:g} is the most"
    return Fitness.FIT, None


def _text(value: object) -> str | None:
    return one_line(value, 200) if isinstance(value, str) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None

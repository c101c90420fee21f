"""Which place suits a task, and for each that does not, the sentence why."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.place import Host, Slots

PREFIX = "agent:"


def capability(label: str) -> str:
    """`agent:rust` and `rust` are the same capability."""
    return label.strip().lower().removeprefix(PREFIX)


def required(labels: Iterable[str]) -> tuple[str, ...]:
    """The capabilities an issue's labels ask for: those with the prefix, sorted, each once."""
    return tuple(sorted({capability(label) for label in labels if label.lower().startswith(PREFIX)} - {""}))


@dataclass(frozen=True)
class Choice:
    """The host and kind of CLI that get a task, and why each other host did not."""

    host: Host
    slots: Slots
    refusals: dict[str, str]


def choose(
    needs: frozenset[str], hosts: Iterable[Host], before: str | None = None, cli: str | None = None
) -> Choice | None:
    """The least loaded fit host with a free slot whose capabilities cover `needs`; among equals the one that had
    the task `before`, then by name. None when every host refuses (`refusals` says why)."""
    fitting = [
        (host, slots) for host in hosts if host.takes_work for slots in host.slots if not _lack(needs, slots, cli)
    ]
    if not fitting:
        return None
    host, slots = min(fitting, key=lambda pair: _rank(pair[0], pair[1], before))
    return Choice(
        host,
        slots,
        {other.host_id: _less_good(other, host, needs, cli) for other in hosts if other is not host},
    )


def refusals(needs: frozenset[str], hosts: Iterable[Host], cli: str | None = None) -> dict[str, str]:
    """For each host the sentence why it cannot take work that needs `needs`."""
    return {host.host_id: why for host in hosts if (why := refusal(needs, host, cli))}


def refusal(needs: frozenset[str], host: Host, cli: str | None = None) -> str | None:
    """Why `host` cannot take work that needs `needs` now, or None if it can."""
    if not host.takes_work:
        return f"{host.fitness}: {host.why}" if host.why else str(host.fitness)
    lacks = [_lack(needs, slots, cli) for slots in host.slots]
    if not lacks:
        return "it has no slots"
    return None if None in lacks else "; ".join(sorted({lack for lack in lacks if lack}))


def _rank(host: Host, slots: Slots, before: str | None) -> tuple[float, bool, str, str]:
    return (host.share_taken, host.host_id != before, host.host_id, slots.agent_type)


def _lack(needs: frozenset[str], slots: Slots, cli: str | None) -> str | None:
    if cli is not None and slots.agent_type != cli:
        return f"no slot for {cli}"
    missing = needs - slots.capabilities
    if missing:
        return f"{slots.agent_type} lacks {', '.join(sorted(missing))}"
    if slots.closed:
        return f"{slots.agent_type}: {slots.closed}"
    return None if slots.free else f"{slots.agent_type} is full {slots.taken}/{slots.max_concurrency}"


def _less_good(host: Host, chosen: Host, needs: frozenset[str], cli: str | None) -> str:
    return refusal(needs, host, cli) or f"more loaded or later in the order than {chosen.host_id}"

"""Chooses the host for a task, and gives the reason why each other host was refused."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.host import Host, Slots

PREFIX = "agent:"


def capability(label: str) -> str:
    """The capability that a label names: `agent:rust` and `rust` are the same."""
    return label.strip().lower().removeprefix(PREFIX)


def required(labels: Iterable[str]) -> tuple[str, ...]:
    """The capabilities that the labels with the prefix require, sorted, each once."""
    return tuple(sorted({capability(label) for label in labels if label.lower().startswith(PREFIX)} - {""}))


@dataclass(frozen=True)
class Choice:
    """The chosen host and slots, the reason, and by host id why each other host was refused."""

    host: Host
    slots: Slots
    refusals: dict[str, str]
    because: str = ""


def choose(
    needs: frozenset[str],
    hosts: Iterable[Host],
    before: str | None = None,
    cli: str | None = None,
    goes_on: bool = False,
) -> Choice | None:
    """Choose the least loaded fit host with a free slot whose capabilities cover `needs`.

    The share of taken slots counts first, then the measured load. Among equals the host that had the task `before`
    wins, then the name. A task that `goes_on` with a session goes to the session's host if possible. Returns None
    when every host refuses; `refusals` explains why.
    """
    hosts = list(hosts)
    fitting = [
        (host, slots)
        for host in hosts
        if host.takes_work
        for slots in host.slots
        if not _slot_refusal(needs, slots, cli)
    ]
    if not fitting:
        return None
    home = before if goes_on else None
    host, slots = min(fitting, key=lambda pair: (home not in (None, pair[0].host_id), _rank(pair[0], pair[1], before)))
    return Choice(
        host,
        slots,
        {other.host_id: _refusal_or_rank(other, host, needs, cli) for other in hosts if other is not host},
        _describe_choice(host, home, len({other.host_id for other, _ in fitting})),
    )


def refusals(needs: frozenset[str], hosts: Iterable[Host], cli: str | None = None) -> dict[str, str]:
    """By host id the reason why the host cannot take work with these needs."""
    return {host.host_id: why for host in hosts if (why := refusal(needs, host, cli))}


def refusal(needs: frozenset[str], host: Host, cli: str | None = None) -> str | None:
    """The reason why the host cannot take work with these needs now, or None if it can."""
    if not host.takes_work:
        return _describe_fitness(host)
    lacks = [_slot_refusal(needs, slots, cli) for slots in host.slots]
    if not lacks:
        return "it has no slots"
    return None if None in lacks else "; ".join(sorted({lack for lack in lacks if lack}))


def waits(needs: frozenset[str], hosts: Iterable[Host], cli: str | None = None) -> list[str]:
    """For each host that cannot take the work, a short reason: `host b full 2/2`."""
    return [f"host {host.host_id} {_short_reason(needs, host, cli)}" for host in hosts if refusal(needs, host, cli)]


def _short_reason(needs: frozenset[str], host: Host, cli: str | None) -> str:
    if not host.takes_work:
        return _describe_fitness(host)
    asked = [slots for slots in host.slots if cli in (None, slots.agent_type)]
    able = [slots for slots in asked if needs <= slots.capabilities]
    here = [slots for slots in able if not slots.missing]
    shut = [slots.closed for slots in here if slots.closed]
    if shut and len(shut) == len(here):
        return shut[0]
    if here:
        return f"full {sum(slots.taken for slots in here)}/{sum(slots.max_concurrency for slots in here)}"
    if able:
        return f"has no {able[0].agent_type} installed"
    lacks = min((needs - slots.capabilities for slots in asked), key=len, default=frozenset())
    if not asked:
        return f"has no slot for {cli or 'anything'}"
    return "lacks it" if len(needs) == 1 else f"lacks {', '.join(sorted(lacks))}"


def _describe_fitness(host: Host) -> str:
    """For example `quarantined since 03:12 on 24 Nov: host key changed`."""
    since = f" since {host.since:%H:%M} on {host.since.day} {host.since:%b}" if host.since else ""
    return f"{host.fitness}{since}: {host.why}" if host.why else f"{host.fitness}{since}"


def _describe_choice(host: Host, home: str | None, fitting: int) -> str:
    if host.host_id == home:
        return "the session to go on with is there"
    if fitting == 1:
        return "no other host can take it now"
    taken, room = sum(slots.taken for slots in host.slots), sum(slots.max_concurrency for slots in host.slots)
    return f"the least loaded of {fitting}: {taken}/{room} slots taken, load {host.load:.1f} a CPU"


def _rank(host: Host, slots: Slots, before: str | None) -> tuple[float, float, bool, str, str]:
    return (host.share_taken, round(host.load, 1), host.host_id != before, host.host_id, slots.agent_type)


def _slot_refusal(needs: frozenset[str], slots: Slots, cli: str | None) -> str | None:
    if cli is not None and slots.agent_type != cli:
        return f"no slot for {cli}"
    missing = needs - slots.capabilities
    if missing:
        return f"{slots.agent_type} lacks {', '.join(sorted(missing))}"
    if slots.missing:
        return f"{slots.agent_type} is not installed there"
    if slots.closed:
        return f"{slots.agent_type}: {slots.closed}"
    return None if slots.free else f"{slots.agent_type} is full {slots.taken}/{slots.max_concurrency}"


def _refusal_or_rank(host: Host, chosen: Host, needs: frozenset[str], cli: str | None) -> str:
    return refusal(needs, host, cli) or f"more loaded or later in the order than {chosen.host_id}"

"""Which place suits a task, and for each that does not, the sentence why."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.host import Host, Slots

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
    because: str = ""


def choose(
    needs: frozenset[str],
    hosts: Iterable[Host],
    before: str | None = None,
    cli: str | None = None,
    goes_on: bool = False,
) -> Choice | None:
    """The least loaded fit host with a free slot whose capabilities cover `needs`: by its share of slots, then by the
    load measured there; among equals the one that had the task `before`, then by name. One that `goes_on` with a
    session goes where that is, if it can. None when every host refuses (`refusals` says why)."""
    hosts = list(hosts)
    fitting = [
        (host, slots) for host in hosts if host.takes_work for slots in host.slots if not _lack(needs, slots, cli)
    ]
    if not fitting:
        return None
    home = before if goes_on else None
    host, slots = min(fitting, key=lambda pair: (home not in (None, pair[0].host_id), _rank(pair[0], pair[1], before)))
    return Choice(
        host,
        slots,
        {other.host_id: _less_good(other, host, needs, cli) for other in hosts if other is not host},
        _because(host, home, len({other.host_id for other, _ in fitting})),
    )


def refusals(needs: frozenset[str], hosts: Iterable[Host], cli: str | None = None) -> dict[str, str]:
    """For each host the sentence why it cannot take work that needs `needs`."""
    return {host.host_id: why for host in hosts if (why := refusal(needs, host, cli))}


def refusal(needs: frozenset[str], host: Host, cli: str | None = None) -> str | None:
    """Why `host` cannot take work that needs `needs` now, or None if it can."""
    if not host.takes_work:
        return _state_of(host)
    lacks = [_lack(needs, slots, cli) for slots in host.slots]
    if not lacks:
        return "it has no slots"
    return None if None in lacks else "; ".join(sorted({lack for lack in lacks if lack}))


def waits(needs: frozenset[str], hosts: Iterable[Host], cli: str | None = None) -> list[str]:
    """For each host that cannot take the work the same in few words: `host b full 2/2`."""
    return [f"host {host.host_id} {_in_short(needs, host, cli)}" for host in hosts if refusal(needs, host, cli)]


def _in_short(needs: frozenset[str], host: Host, cli: str | None) -> str:
    if not host.takes_work:
        return _state_of(host)
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


def _state_of(host: Host) -> str:
    """`quarantined since 03:12 on 24 Nov: host key changed`."""
    since = f" since {host.since:%H:%M} on {host.since.day} {host.since:%b}" if host.since else ""
    return f"{host.fitness}{since}: {host.why}" if host.why else f"{host.fitness}{since}"


def _because(host: Host, home: str | None, fitting: int) -> str:
    if host.host_id == home:
        return "the session to go on with is there"
    if fitting == 1:
        return "no other host can take it now"
    taken, room = sum(slots.taken for slots in host.slots), sum(slots.max_concurrency for slots in host.slots)
    return f"the least loaded of {fitting}: {taken}/{room} slots taken, load {host.load:.1f} a CPU"


def _rank(host: Host, slots: Slots, before: str | None) -> tuple[float, float, bool, str, str]:
    return (host.share_taken, round(host.load, 1), host.host_id != before, host.host_id, slots.agent_type)


def _lack(needs: frozenset[str], slots: Slots, cli: str | None) -> str | None:
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


def _less_good(host: Host, chosen: Host, needs: frozenset[str], cli: str | None) -> str:
    return refusal(needs, host, cli) or f"more loaded or later in the order than {chosen.host_id}"

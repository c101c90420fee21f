"""Places waiting tasks on hosts: the least loaded that suits, one slot at a time."""

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from app.domain import matching
from app.domain.lifecycle import Fact, What
from app.domain.place import Host, Slots
from app.domain.task import Task
from app.ports import Fleet
from app.store import claims, places, tasks, views


def place_waiting(fleet: Fleet) -> int:
    """Give every ready task that a host can take to the host that suits it best; returns how many."""
    with fleet.engine.begin() as conn:
        waiting = claims.waiting_wishes(conn)
        if not waiting:
            return 0
        claims.hold_the_slots(conn)
        hosts = places.all_hosts(conn)
        placeable = [wish for wish, needs in waiting.items() if matching.choose(needs, hosts, cli=wish[1])]
        free = sum(slots.free for host in hosts for slots in host.slots)
        placed = 0
        for task, wish in claims.ready_for_hosts(conn, placeable, free) if placeable else ():
            choice = matching.choose(waiting[wish], hosts, before=task.host_id, cli=wish[1])
            if choice:
                _place(conn, fleet, task, choice)
                hosts = [_with_one_more(host, choice) for host in hosts]
                placed += 1
        return placed


def why(conn: Connection, task: Task) -> dict[str, object]:
    """Where a task is and why: for one that waits, the sentence with which each host refuses it."""
    brief = views.brief(conn, task.id)
    needs = frozenset(views.needs(conn, task.capset_id))
    answer: dict[str, object] = {"task_id": task.task_id, "status": task.state, "needs": sorted(needs)}
    if not task.live or not task.ready:
        return answer | {
            "reason": task.reason,
            "host": task.host_id,
            "waits_until": views.moment(task.due_at),
        }
    hosts = places.all_hosts(conn)
    return answer | {
        "mode": task.mode,
        "refusals": matching.refusals(needs, hosts, brief["cli"]),
        "hosts": len(hosts),
    }


def _place(conn: Connection, fleet: Fleet, task: Task, choice: matching.Choice) -> None:
    at = fleet.clock()
    detail = {
        "host_id": choice.host.host_id,
        "agent_type": choice.slots.agent_type,
        "until": (at + timedelta(seconds=fleet.config.confirm_secs)).isoformat(),
        "refusals": choice.refusals,
    }
    tasks.record(conn, task.id, Fact(What.PLACED, detail), at)


def _with_one_more(host: Host, chosen: matching.Choice) -> Host:
    if host.host_id != chosen.host.host_id:
        return host
    taken = chosen.slots.agent_type
    return replace(host, slots=tuple(_taken(slots) if slots.agent_type == taken else slots for slots in host.slots))


def _taken(slots: Slots) -> Slots:
    return replace(slots, taken=slots.taken + 1)

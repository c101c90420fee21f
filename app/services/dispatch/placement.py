"""Places waiting tasks on hosts: the least loaded that suits, one slot at a time."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app.domain import forge_messages, matching
from app.domain.errors import Kind, Refused
from app.domain.host import Host, Slots
from app.domain.lifecycle import Fact, What
from app.domain.task import Mode, Task
from app.ports import Fleet
from app.services.dispatch import credentials, host_health
from app.store import agents, dequeue, fleet_config, runs, tasks, views
from app.store.tables import Row

MOST_NAMED = 20  # places in one sentence


def place_waiting(fleet: Fleet) -> int:
    """Give every ready task that a host can take to the host that suits it best; returns how many."""
    with fleet.engine.begin() as conn:
        waiting = dequeue.wishes_for_hosts(conn)
        if not waiting:
            return 0
        dequeue.hold_the_slots(conn)
        doors = credentials.doors(conn, fleet.clock())
        hosts = doors.on(fleet_config.all_hosts(conn))
        placeable = [set_ for set_, (needs, cli) in waiting.items() if _choose(doors, needs, hosts, None, cli)]
        free = sum(slots.free for host in hosts for slots in host.slots)
        placed = 0
        large = _large(conn) if placeable else set()
        off = credentials.switched_off(conn) + _nowhere(large, hosts) if placeable else []
        for task in dequeue.for_hosts(conn, placeable, free, off) if placeable else ():
            needs, cli = waiting[task.capset_id]
            choice = _choose(doors, needs, _able(hosts, task, large), task.host_id, cli, goes_on=bool(task.session))
            if choice:
                _place(conn, fleet, task, choice)
                doors = doors.placed(choice.slots.agent_type, choice.host.host_id)
                hosts = doors.on([_with_one_more(host, choice) for host in hosts])
                placed += 1
        return placed


def _choose(
    doors: credentials.Doors,
    needs: frozenset[str],
    hosts: list[Host],
    before: str | None,
    cli: str | None,
    goes_on: bool = False,
) -> matching.Choice | None:
    """The best place for the CLI that is wanted; while its limit stands, for the first that takes over and has one."""
    wanted = (matching.choose(needs, hosts, before, one, goes_on) for one in (cli, *doors.instead_of(cli)))
    return next((choice for choice in wanted if choice), None)


def _large(conn: Connection) -> set[str]:
    """The repositories that keep files in Git LFS, as `forge id`."""
    return {f"{row['forge']} {row['id']}" for row in fleet_config.all_repositories(conn) if row["keeps_lfs"]}


def _nowhere(large: set[str], hosts: list[Host]) -> list[str]:
    """Those of them for which no host has room now: their tasks shall not stand in the way of others."""
    room = any(slots.free for host in hosts if host.takes_work and not host.lacks_lfs for slots in host.slots)
    return [] if room else sorted(large)


def _able(hosts: list[Host], task: Task, large: set[str]) -> list[Host]:
    """The hosts, those closed to the task that cannot have all of its files."""
    if f"{task.forge} {task.repository_id}" not in large:
        return hosts
    return [replace(host, slots=tuple(map(_without_lfs, host.slots))) if host.lacks_lfs else host for host in hosts]


def _without_lfs(slots: Slots) -> Slots:
    return replace(slots, closed="git-lfs, which this repository needs, is not installed there")


def why(conn: Connection, task: Task, at: datetime | None = None) -> dict[str, object]:
    """Where a task is and why: for one that waits, the sentence with which each host refuses it; at a moment,
    also which limits stand then."""
    names, cli = views.needs(conn, task.capset_id)
    needs = frozenset(names)
    answer: dict[str, object] = {"task_id": task.task_id, "status": task.state, "needs": sorted(needs)}
    if not task.live or not task.ready:
        return answer | _where_it_is(conn, task)
    hosts = fleet_config.all_hosts(conn)
    hosts = _able(credentials.doors(conn, at).on(hosts) if at else hosts, task, _large(conn))
    off = credentials.off(conn, task)
    by_hosts = [] if task.mode is Mode.HTTP_PULL else matching.waits(needs, hosts, cli)
    by_agents = {} if task.mode is Mode.SSH_CLI else _agents_refusals(conn, needs)
    waits = _sentence(needs, by_hosts + [f"agent {name} {why[3:]}" for name, why in by_agents.items()])
    return (
        answer
        | ({"reason": off} if off else {})
        | {
            "mode": task.mode,
            "sentence": f"waits: {off}" if off else waits,
            "refusals": {} if task.mode is Mode.HTTP_PULL else matching.refusals(needs, hosts, cli),
            "agents": by_agents,
            "hosts": len(hosts),
        }
    )


def _where_it_is(conn: Connection, task: Task) -> dict[str, object]:
    """For a task that is not waiting for a place: where it is, why it was placed there, and why it does not go on."""
    placed = views.newest_event(conn, task.id, (What.PLACED,)) if task.host_id else None
    chosen: dict[str, Any] = placed["detail"] if placed else {}
    return {
        "reason": task.reason,
        "why": views.newest_why(conn, task.id, forge_messages.why_name(task)),
        "host": task.host_id,
        "waits_until": views.moment(task.due_at),
        "sentence": chosen.get("because") and f"on {task.host_id}: {chosen['because']}",
        "refusals": chosen.get("refusals") or {},
    }


def _sentence(needs: frozenset[str], refusals: list[str]) -> str:
    """`waits: needs gpu; host a lacks it, host b full 2/2`."""
    wants = f"waits: needs {', '.join(sorted(needs))}" if needs else "waits: needs nothing special"
    if not refusals:
        return f"{wants}; it is placed in a moment"
    more = f", and {len(refusals) - MOST_NAMED} more" if len(refusals) > MOST_NAMED else ""
    return f"{wants}; {', '.join(refusals[:MOST_NAMED])}{more}"


def _agents_refusals(conn: Connection, needs: frozenset[str]) -> dict[str, str]:
    """For each agent that has not taken a waiting task, why not as far as we know."""
    return {row["agent_id"]: _agents_refusal(row, needs) for row in agents.everybody(conn)}


def _agents_refusal(agent: Row, needs: frozenset[str]) -> str:
    lacks, held = needs - set(agent["capabilities"]), len(agent["holds"] or [])
    if agent["revoked_at"]:
        return "it was revoked"
    if lacks:
        return f"it lacks {', '.join(sorted(lacks))}"
    full = f"it is full {held}/{agent['max_concurrency']}"
    return full if held >= agent["max_concurrency"] else f"it has not asked; last seen {views.moment(agent['seen_at'])}"


def to_host(fleet: Fleet, task_id: str, host_id: str) -> Task:
    """An operator gives a waiting task to a host. Raises Refused with the host's own reason."""
    with fleet.engine.begin() as conn:
        dequeue.hold_the_slots(conn)
        task = _switched_on(conn, task_id)
        names, cli = views.needs(conn, task.capset_id)
        hosts = credentials.doors(conn, fleet.clock()).on(fleet_config.all_hosts(conn))
        host = host_health.find(hosts, host_id)
        (host,) = _able([host], task, _large(conn))
        choice = matching.choose(frozenset(names), [host], cli=cli)
        if choice is None:
            raise Refused(Kind.INVALID, f"{host_id}: {matching.refusal(frozenset(names), host, cli)}")
        choice = replace(choice, because="an operator gave it this host")
        task = _place(conn, fleet, task, choice)
    fleet.nudge.soon()
    return task


def to_agent(fleet: Fleet, task_id: str, agent_id: str) -> Task:
    """An operator gives a waiting task to an agent, which hears of it when it beats or next asks for work. Raises
    Refused."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        agent = agents.hold(conn, agent_id)
        if agent is None or agent["gone_at"] or agent["revoked_at"]:
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}; `fleet agents list` shows those there are.")
        task = _switched_on(conn, task_id)
        lacks = set(views.needs(conn, task.capset_id)[0]) - set(agent["capabilities"])
        if lacks:
            raise Refused(Kind.INVALID, f"{agent_id} lacks {', '.join(sorted(lacks))}.")
        if len(runs.open_of_agent(conn, agent_id)) >= agent["max_concurrency"]:
            raise Refused(Kind.INVALID, f"{agent_id} is full: it has {agent['max_concurrency']} slots.")
        until = at + timedelta(seconds=fleet.config.offline_after_secs)
        detail = {"agent_id": agent_id, "agent_type": agent["agent_type"], "until": until.isoformat(), "handed": False}
        return tasks.record(conn, task.id, Fact(What.CLAIMED, detail), at)


def _switched_on(conn: Connection, task_id: str) -> Task:
    """The task, if its repository is not switched off. Raises Refused."""
    task = tasks.find(conn, task_id)
    if why := credentials.off(conn, task):
        raise Refused(Kind.INVALID, f"{task_id}: {why}")
    return task


def _place(conn: Connection, fleet: Fleet, task: Task, choice: matching.Choice) -> Task:
    at = fleet.clock()
    detail = {
        "host_id": choice.host.host_id,
        "agent_type": choice.slots.agent_type,
        "until": (at + timedelta(seconds=fleet.config.confirm_secs)).isoformat(),
        "because": choice.because,
        "refusals": choice.refusals,
    }
    return tasks.record(conn, task.id, Fact(What.PLACED, detail), at)


def _with_one_more(host: Host, chosen: matching.Choice) -> Host:
    if host.host_id != chosen.host.host_id:
        return host
    taken = chosen.slots.agent_type
    return replace(host, slots=tuple(_taken(slots) if slots.agent_type == taken else slots for slots in host.slots))


def _taken(slots: Slots) -> Slots:
    return replace(slots, taken=slots.taken + 1)

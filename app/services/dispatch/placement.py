"""Places waiting tasks on hosts: the least loaded host that suits, one slot at a time."""

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from app.domain import matching
from app.domain.errors import Kind, Refused
from app.domain.host import Host, Slots
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import Task
from app.ports import Fleet
from app.services.dispatch import credentials, host_health
from app.services.dispatch.lfs import close_without_lfs, lfs_repositories, unplaceable
from app.store import agents, dequeue, runs, tasks, views
from app.store import hosts as host_rows


def place_waiting(fleet: Fleet) -> int:
    """Place every ready task that a host can take on the host that suits it best; returns how many."""
    with fleet.engine.begin() as conn:
        waiting = dequeue.needs_for_hosts(conn)
        if not waiting:
            return 0
        dequeue.lock_host_slots(conn)
        closed = credentials.closed_credentials(conn, fleet.clock())
        hosts = closed.close_slots(host_rows.all_hosts(conn))
        placeable = [set_ for set_, (needs, cli) in waiting.items() if _choose(closed, needs, hosts, None, cli)]
        free = sum(slots.free for host in hosts for slots in host.slots)
        placed = 0
        large = lfs_repositories(conn) if placeable else set()
        off = credentials.switched_off(conn) + unplaceable(large, hosts) if placeable else []
        for task in dequeue.for_hosts(conn, placeable, free, off) if placeable else ():
            needs, cli = waiting[task.requirement_set_id]
            choice = _choose(
                closed, needs, close_without_lfs(hosts, task, large), task.host_id, cli, goes_on=bool(task.session)
            )
            if choice:
                _assign(conn, fleet, task, choice)
                closed = closed.after_placing(choice.slots.agent_type, choice.host.host_id)
                hosts = closed.close_slots([_with_one_more(host, choice) for host in hosts])
                placed += 1
        return placed


def _choose(
    closed: credentials.ClosedCredentials,
    needs: frozenset[str],
    hosts: list[Host],
    before: str | None,
    cli: str | None,
    goes_on: bool = False,
) -> matching.Choice | None:
    """The best slot for the wanted CLI; while its credential is closed, for the first CLI that replaces it."""
    wanted = (matching.choose(needs, hosts, before, one, goes_on) for one in (cli, *closed.replacements_of(cli)))
    return next((choice for choice in wanted if choice), None)


def place_on_host(fleet: Fleet, task_id: str, host_id: str) -> Task:
    """Place a waiting task on a host that an operator named. Raises Refused with the reason why the host cannot."""
    with fleet.engine.begin() as conn:
        dequeue.lock_host_slots(conn)
        task = _find_enabled(conn, task_id)
        names, cli = views.needs(conn, task.requirement_set_id)
        hosts = credentials.closed_credentials(conn, fleet.clock()).close_slots(host_rows.all_hosts(conn))
        host = host_health.find(hosts, host_id)
        (host,) = close_without_lfs([host], task, lfs_repositories(conn))
        choice = matching.choose(frozenset(names), [host], cli=cli)
        if choice is None:
            raise Refused(Kind.INVALID, f"{host_id}: {matching.refusal(frozenset(names), host, cli)}")
        choice = replace(choice, because="an operator gave it this host")
        task = _assign(conn, fleet, task, choice)
    fleet.nudge.soon()
    return task


def give_to_agent(fleet: Fleet, task_id: str, agent_id: str) -> Task:
    """Give a waiting task to an agent that an operator named. Raises Refused.

    The agent receives it with its next heartbeat or dequeue.
    """
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        agent = agents.lock(conn, agent_id)
        if agent is None or not agent.is_present:
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}; `fleet agents list` shows those there are.")
        task = _find_enabled(conn, task_id)
        lacks = set(views.needs(conn, task.requirement_set_id)[0]) - set(agent.capabilities)
        if lacks:
            raise Refused(Kind.INVALID, f"{agent_id} lacks {', '.join(sorted(lacks))}.")
        if len(runs.open_of_agent(conn, agent_id)) >= agent.max_concurrency:
            raise Refused(Kind.INVALID, f"{agent_id} is full: it has {agent.max_concurrency} slots.")
        until = at + timedelta(seconds=fleet.config.offline_after_secs)
        detail = {
            "agent_id": agent_id,
            "agent_type": agent.agent_type,
            "until": until.isoformat(),
            "acknowledged": False,
        }
        return tasks.record(conn, task.id, Fact(FactKind.CLAIMED, detail), at)


def _find_enabled(conn: Connection, task_id: str) -> Task:
    """The task. Raises Refused if its repository is switched off."""
    task = tasks.find(conn, task_id)
    if why := credentials.why_switched_off(conn, task):
        raise Refused(Kind.INVALID, f"{task_id}: {why}")
    return task


def _assign(conn: Connection, fleet: Fleet, task: Task, choice: matching.Choice) -> Task:
    at = fleet.clock()
    detail = {
        "host_id": choice.host.host_id,
        "agent_type": choice.slots.agent_type,
        "until": (at + timedelta(seconds=fleet.config.confirm_secs)).isoformat(),
        "because": choice.because,
        "refusals": choice.refusals,
    }
    return tasks.record(conn, task.id, Fact(FactKind.PLACED, detail), at)


def _with_one_more(host: Host, chosen: matching.Choice) -> Host:
    if host.host_id != chosen.host.host_id:
        return host
    taken = chosen.slots.agent_type
    return replace(
        host, slots=tuple(_with_one_taken(slots) if slots.agent_type == taken else slots for slots in host.slots)
    )


def _with_one_taken(slots: Slots) -> Slots:
    return replace(slots, taken=slots.taken + 1)

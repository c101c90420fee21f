"""Explains why a task waits: each host's and agent's refusal as a sentence."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain import forge_messages, matching
from app.domain.agent import ListedAgent
from app.domain.lifecycle import FactKind
from app.domain.task import Mode, Task
from app.services.dispatch import credentials
from app.services.dispatch.lfs import close_without_lfs, lfs_repositories
from app.store import agents, events, views
from app.store import hosts as host_rows

MOST_NAMED = 20  # hosts and agents in one sentence


def why(conn: Connection, task: Task, at: datetime | None = None) -> dict[str, object]:
    """Where a task is and why. For a waiting task: the reason of each host that cannot take it.

    With `at`, also credentials that are closed at that moment.
    """
    names, cli = views.needs(conn, task.requirement_set_id)
    needs = frozenset(names)
    answer: dict[str, object] = {"task_id": task.task_id, "status": task.state, "needs": sorted(needs)}
    if not task.live or not task.ready:
        return answer | _where_it_is(conn, task)
    hosts = host_rows.all_hosts(conn)
    if at:
        hosts = credentials.closed_credentials(conn, at).close_slots(hosts)
    hosts = close_without_lfs(hosts, task, lfs_repositories(conn))
    off = credentials.why_switched_off(conn, task)
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
    """For a task that does not wait for a host: where it is, why it was placed there, and why it does not continue."""
    placed = events.newest(conn, task.id, FactKind.PLACED) if task.host_id else None
    chosen: Mapping[str, Any] = placed.detail if placed else {}
    return {
        "reason": task.reason,
        "why": events.newest_detail(conn, task.id, forge_messages.why_name(task)),
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
    """For each agent: why it has not taken a waiting task, as far as we know."""
    return {one.agent.agent_id: _agents_refusal(one, needs) for one in agents.list_present(conn)}


def _agents_refusal(listed: ListedAgent, needs: frozenset[str]) -> str:
    agent, held = listed.agent, len(listed.tasks)
    lacks = needs - set(agent.capabilities)
    if agent.revoked_at:
        return "it was revoked"
    if lacks:
        return f"it lacks {', '.join(sorted(lacks))}"
    full = f"it is full {held}/{agent.max_concurrency}"
    return full if held >= agent.max_concurrency else f"it has not asked; last seen {views.moment(agent.seen_at)}"

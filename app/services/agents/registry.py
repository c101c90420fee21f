"""Registers, deregisters, revokes and lists agents; creates and revokes enrolment tokens."""

import hashlib
import hmac
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain import matching
from app.domain.agent import ListedAgent, Registration
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Run
from app.ports import Fleet
from app.store import agents, runs, tasks, views

log = structlog.get_logger()


def hash_of(token: str) -> bytes:
    """The hash of a token, which is stored. Tokens are long and random, so one round of SHA-256 is enough."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def create_enrolment_token(fleet: Fleet, name: str, days: float | None) -> str:
    """A new enrolment token, valid for `days` (None: for ever). Raises Refused if the name is taken."""
    token, at = secrets.token_urlsafe(32), fleet.clock()
    with fleet.engine.begin() as conn:
        if not agents.add_enrolment_token(conn, name, hash_of(token), at, at + timedelta(days=days) if days else None):
            raise Refused(Kind.INVALID, f"There is an enrolment token {name!r} already: choose another name.")
    return token


def revoke_enrolment_token(fleet: Fleet, name: str) -> None:
    """Revoke an enrolment token; agents that used it stay. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        if not agents.revoke_enrolment_token(conn, name, fleet.clock()):
            raise Refused(
                Kind.UNKNOWN, f"There is no enrolment token {name!r} in force; `fleet enroll list` shows all."
            )


def check_may_register(fleet: Fleet, token: str) -> None:
    """Raises Refused unless the token is an enrolment token or an agent's. Checked before the request is read."""
    with fleet.engine.begin() as conn:
        if not token or not _is_known(conn, fleet, token):
            raise Refused(Kind.UNAUTHORIZED, "Show an enrolment token (`fleet enroll create`), or the agent's own.")


def register(fleet: Fleet, given: Registration, token: str) -> tuple[str, bool]:
    """Register an agent that shows an enrolment token or its own token.

    Returns its new token, and whether the agent is new. Raises Refused.
    """
    new = secrets.token_urlsafe(32)
    words = sorted({matching.capability(word) for word in given.capabilities} - {""})
    with fleet.engine.begin() as conn:
        _check_may_register_as(conn, fleet, given.agent_id, token)
        is_new = agents.register(conn, replace(given, capabilities=tuple(words)), hash_of(new), fleet.clock())
    log.info("agent registered", agent=given.agent_id, new=is_new)
    return new, is_new


def deregister(fleet: Fleet, agent_id: str) -> list[str]:
    """Deregister the agent. Its tasks go back to the queue, and no attempt is counted. Returns their ids."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        agents.lock(conn, agent_id)
        agents.mark_gone(conn, agent_id, at)
        back = [_give_back(conn, fleet, run) for run in runs.open_of_agent(conn, agent_id)]
    log.info("agent left", agent=agent_id, gave_back=len(back))
    fleet.nudge.soon()
    return [task_id for task_id in back if task_id]


def revoke(fleet: Fleet, agent_id: str) -> list[str]:
    """Refuse the agent from now on, and requeue its tasks. Returns their ids. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        if agents.get(conn, agent_id) is None:
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}; `fleet agents list` shows those there are.")
        agents.revoke(conn, agent_id, fleet.clock(), hash_of(secrets.token_urlsafe(32)))
    return deregister(fleet, agent_id)


def restore(fleet: Fleet, agent_id: str) -> None:
    """Let a revoked agent register again, with an enrolment token. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        if not agents.restore(conn, agent_id):
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}; `fleet agents list` shows those there are.")


def list_agents(fleet: Fleet) -> list[dict[str, Any]]:
    """Agents as the API shows them: all but those that have left."""
    silent_since = fleet.clock() - timedelta(seconds=fleet.config.offline_after_secs)
    with fleet.engine.begin() as conn:
        return [_as_json(listed, silent_since) for listed in agents.list_present(conn)]


def _as_json(listed: ListedAgent, silent_since: datetime) -> dict[str, Any]:
    agent = listed.agent
    return {
        "agent_id": agent.agent_id,
        "agent_type": agent.agent_type,
        "hostname": agent.hostname,
        "capabilities": list(agent.capabilities),
        "max_concurrency": agent.max_concurrency,
        "metadata": agent.metadata,
        "status": "online" if listed.is_online(silent_since) else "offline",
        "revoked": agent.revoked_at is not None,
        "tasks": list(listed.tasks),
        "registered_at": views.moment(agent.registered_at),
        "last_seen_at": views.moment(agent.seen_at),
    }


def _check_may_register_as(conn: Connection, fleet: Fleet, agent_id: str, token: str) -> None:
    """Raises Refused unless the token is an enrolment token or this agent's own."""
    if token and not _may_enrol(conn, fleet, token):
        own = agents.id_of_token(conn, hash_of(token), fleet.clock())
        if own is None:
            raise Refused(Kind.UNAUTHORIZED, "Show an enrolment token (`fleet enroll create`) or your own.")
        if own != agent_id:
            raise Refused(Kind.FORBIDDEN, f"This token belongs to agent {own!r}, not to {agent_id!r}.")
    elif not token:
        raise Refused(Kind.UNAUTHORIZED, "Show an enrolment token: Authorization: Bearer <token>.")
    known = agents.get(conn, agent_id)
    if known is not None and known.revoked_at:
        raise Refused(Kind.FORBIDDEN, f"The agent {agent_id!r} was revoked; `fleet agents restore` lets it in again.")


def _is_known(conn: Connection, fleet: Fleet, token: str) -> bool:
    at, hashed = fleet.clock(), hash_of(token)
    is_enrolment = _is_fixed(fleet, token) or agents.is_enrolment_token(conn, hashed, at)
    return is_enrolment or agents.id_of_token(conn, hashed, at) is not None


def _may_enrol(conn: Connection, fleet: Fleet, token: str) -> bool:
    return _is_fixed(fleet, token) or agents.use_enrolment_token(conn, hash_of(token), fleet.clock()) is not None


def _is_fixed(fleet: Fleet, token: str) -> bool:
    """True if it is the enrolment token of the settings."""
    fixed = fleet.config.secret("FLEET_ENROLL_TOKEN")
    return bool(fixed) and hmac.compare_digest(hash_of(token), hash_of(fixed or ""))


def _give_back(conn: Connection, fleet: Fleet, run: Run) -> str | None:
    runs.end(conn, run.id, fleet.clock(), "given_back")
    try:
        return tasks.record(conn, run.task_pk, Fact(FactKind.GIVEN_BACK, run=run.number), fleet.clock()).task_id
    except Refused:  # the task went on without this run
        return None

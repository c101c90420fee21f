"""Agents come and go: enrolment tokens, registration, deregistration, revocation."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain import matching
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Run
from app.ports import Fleet
from app.store import agents, runs, tasks, views
from app.store.tables import Row

log = structlog.get_logger()


def hash_of(token: str) -> bytes:
    """What is stored of a token. Tokens are long and random, so that one round of SHA-256 is enough."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def invite(fleet: Fleet, name: str, days: float | None) -> str:
    """A new enrolment token, told once. Raises Refused when the name is taken."""
    token, at = secrets.token_urlsafe(32), fleet.clock()
    with fleet.engine.begin() as conn:
        if not agents.invite(conn, name, hash_of(token), at, at + timedelta(days=days) if days else None):
            raise Refused(Kind.INVALID, f"There is an enrolment token {name!r} already: choose another name.")
    return token


def withdraw(fleet: Fleet, name: str) -> None:
    """Revoke an enrolment token; the agents that used it stay. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        if not agents.revoke_invitation(conn, name, fleet.clock()):
            raise Refused(
                Kind.UNKNOWN, f"There is no enrolment token {name!r} in force; `fleet enroll list` shows all."
            )


def check_may_register(fleet: Fleet, token: str) -> None:
    """Refuse whoever shows neither an enrolment token nor the token of an agent, before anything else is looked at."""
    at, shown = fleet.clock(), hash_of(token)
    with fleet.engine.begin() as conn:
        if not token or not (
            _is_fixed(fleet, token) or agents.is_invited(conn, shown, at) or agents.with_token(conn, shown, at)
        ):
            raise Refused(Kind.UNAUTHORIZED, "Show an enrolment token (`fleet enroll create`), or the agent's own.")


def register(fleet: Fleet, given: Mapping[str, Any], token: str) -> tuple[str, bool]:
    """Write down an agent (agent_id, agent_type, hostname, capabilities, max_concurrency, metadata) that shows an
    enrolment token or its own. Returns its new token, told once, and whether the agent is new. Raises Refused."""
    new = secrets.token_urlsafe(32)
    words = sorted({matching.capability(word) for word in given["capabilities"]} - {""})
    with fleet.engine.begin() as conn:
        _let_in(conn, fleet, given["agent_id"], token)
        is_new = agents.register(conn, {**given, "capabilities": words}, hash_of(new), fleet.clock())
    log.info("agent registered", agent=given["agent_id"], new=is_new)
    return new, is_new


def deregister(fleet: Fleet, agent_id: str) -> list[str]:
    """The agent leaves; what it holds goes back to the queue and no attempt is counted. Returns those task ids."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        agents.hold(conn, agent_id)
        agents.gone(conn, agent_id, at)
        back = [_give_back(conn, fleet, run) for run in runs.open_of_agent(conn, agent_id)]
    log.info("agent left", agent=agent_id, gave_back=len(back))
    fleet.nudge.soon()
    return [task_id for task_id in back if task_id]


def revoke(fleet: Fleet, agent_id: str) -> list[str]:
    """Refuse the agent from now on and give back what it holds. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        if agents.get(conn, agent_id) is None:
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}; `fleet agents list` shows those there are.")
        agents.revoke(conn, agent_id, fleet.clock(), hash_of(secrets.token_urlsafe(32)))
    return deregister(fleet, agent_id)


def restore(fleet: Fleet, agent_id: str) -> None:
    """Let a revoked agent register again, with an enrolment token: its own are gone. Raises Refused(unknown)."""
    with fleet.engine.begin() as conn:
        if not agents.restore(conn, agent_id):
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}; `fleet agents list` shows those there are.")


def listed(fleet: Fleet) -> list[dict[str, Any]]:
    """Who is there and who was revoked, what they can do, what they hold."""
    silent_since = fleet.clock() - timedelta(seconds=fleet.config.offline_after_secs)
    with fleet.engine.begin() as conn:
        return [_shown(row, silent_since) for row in agents.everybody(conn)]


def _shown(row: Row, silent_since: datetime) -> dict[str, Any]:
    online = "online" if row["seen_at"] > silent_since and not row["gone_at"] else "offline"
    return {
        **{name: row[name] for name in ("agent_id", "agent_type", "hostname", "capabilities", "max_concurrency")},
        "metadata": row["metadata"],
        "status": online,
        "revoked": row["revoked_at"] is not None,
        "tasks": row["holds"] or [],
        "registered_at": views.moment(row["registered_at"]),
        "last_seen_at": views.moment(row["seen_at"]),
    }


def _let_in(conn: Connection, fleet: Fleet, agent_id: str, token: str) -> None:
    """By an enrolment token, or by the agent's own current one."""
    at, shown = fleet.clock(), hash_of(token)
    if token and not _may_enrol(conn, fleet, token):
        own = agents.with_token(conn, shown, at)
        if own is None:
            raise Refused(Kind.UNAUTHORIZED, "Show an enrolment token (`fleet enroll create`) or your own.")
        if own != agent_id:
            raise Refused(Kind.FORBIDDEN, f"This token belongs to agent {own!r}, not to {agent_id!r}.")
    elif not token:
        raise Refused(Kind.UNAUTHORIZED, "Show an enrolment token: Authorization: Bearer <token>.")
    known = agents.get(conn, agent_id)
    if known is not None and known["revoked_at"]:
        raise Refused(Kind.FORBIDDEN, f"The agent {agent_id!r} was revoked; `fleet agents restore` lets it in again.")


def _may_enrol(conn: Connection, fleet: Fleet, token: str) -> bool:
    return _is_fixed(fleet, token) or agents.use_invitation(conn, hash_of(token), fleet.clock()) is not None


def _is_fixed(fleet: Fleet, token: str) -> bool:
    """Whether it is the one that the settings hold."""
    fixed = fleet.config.secret("FLEET_ENROLL_TOKEN")
    return bool(fixed) and hmac.compare_digest(hash_of(token), hash_of(fixed or ""))


def _give_back(conn: Connection, fleet: Fleet, run: Run) -> str | None:
    runs.ended(conn, run.id, fleet.clock(), "given_back")
    try:
        return tasks.record(conn, run.task_pk, Fact(FactKind.GIVEN_BACK, run=run.number), fleet.clock()).task_id
    except Refused:  # the task went on without this run
        return None

"""Stores agents, their tokens, the enrolment tokens they register with, and answers to dequeues."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.domain.agent import Agent, EnrolmentToken, ListedAgent, Registration
from app.store.engine import fetch_one
from app.store.tables import Row, agents, dequeue_answers, enrolments, runs, tasks

OVERLAP = timedelta(seconds=60)  # how long a token still works after it was rotated
KEPT = timedelta(hours=24)  # how long the answer to a dequeue can be asked for again


def register(conn: Connection, given: Registration, token_hash: bytes, at: datetime) -> bool:
    """Store an agent with a new token; True if it is new. Its previous token works for OVERLAP more."""
    values = {
        **vars(given),
        "capabilities": list(given.capabilities),
        "token_hash": token_hash,
        "seen_at": at,
        "gone_at": None,
    }
    former = {"former_hash": agents.c.token_hash, "former_until": at + OVERLAP}
    known = sa.update(agents).where(agents.c.agent_id == given.agent_id).values(**values, **former)
    if conn.execute(known).rowcount:
        return False
    new = insert(agents).values(**values, registered_at=at).on_conflict_do_nothing()
    return bool(conn.execute(new).rowcount) or register(conn, given, token_hash, at)


def id_of_token(conn: Connection, token_hash: bytes, at: datetime) -> str | None:
    """The id of the agent that this token authenticates."""
    found = fetch_one(conn, _AUTHENTICATED, hash=token_hash, at=at)
    return str(found["agent_id"]) if found else None


_AUTHENTICATED = """
SELECT agent_id FROM agents
WHERE revoked_at IS NULL AND (token_hash = %(hash)s OR (former_hash = %(hash)s AND former_until > %(at)s))
"""


def get(conn: Connection, agent_id: str) -> Agent | None:
    row = conn.execute(sa.select(agents).where(agents.c.agent_id == agent_id)).mappings().first()
    return _agent(row) if row else None


def lock(conn: Connection, agent_id: str) -> Agent | None:
    """The agent, its row locked: no other transaction counts its free slots."""
    query = sa.select(agents).where(agents.c.agent_id == agent_id).with_for_update(key_share=True)
    row = conn.execute(query).mappings().first()
    return _agent(row) if row else None


def mark_seen(conn: Connection, agent_id: str, at: datetime) -> None:
    conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(seen_at=at))


def mark_gone(conn: Connection, agent_id: str, at: datetime) -> None:
    conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(gone_at=at))


def revoke(conn: Connection, agent_id: str, at: datetime, void: bytes) -> None:
    """Refuse the agent from now on. Its tokens end for good: `void` is the hash of a token that nobody has."""
    values = {"revoked_at": at, "token_hash": void, "former_hash": None}
    conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(**values))


def restore(conn: Connection, agent_id: str) -> bool:
    """Let the agent register again; False if there is none."""
    return bool(conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(revoked_at=None)).rowcount)


def list_present(conn: Connection) -> list[ListedAgent]:
    """Every agent that has not left or was revoked, with the tasks that it holds."""
    held = (
        sa.select(sa.func.array_agg(tasks.c.task_id))
        .join_from(runs, tasks)
        .where(runs.c.agent_id == agents.c.agent_id, runs.c.ended_at.is_(None))
        .scalar_subquery()
    )
    here = sa.or_(agents.c.gone_at.is_(None), agents.c.revoked_at.is_not(None))
    query = sa.select(agents, held.label("holds")).where(here).order_by(agents.c.agent_id)
    return [ListedAgent(_agent(row), tuple(row["holds"] or ())) for row in conn.execute(query).mappings()]


def _agent(row: Row) -> Agent:
    known = {name: row[name] for name in Agent.__dataclass_fields__}
    return Agent(**known | {"capabilities": tuple(row["capabilities"])})


# --- enrolment -------------------------------------------------------------------------------------------


def add_enrolment_token(
    conn: Connection, name: str, token_hash: bytes, at: datetime, expires_at: datetime | None
) -> bool:
    """Store a new enrolment token; False if the name is taken."""
    values = {"name": name, "token_hash": token_hash, "made_at": at, "expires_at": expires_at}
    return bool(conn.execute(insert(enrolments).values(**values).on_conflict_do_nothing()).rowcount)


def use_enrolment_token(conn: Connection, token_hash: bytes, at: datetime) -> str | None:
    """The name of the enrolment token if it is in force; counts the use."""
    use = sa.update(enrolments).where(*_in_force(token_hash, at))
    return conn.execute(use.values(used_at=at, uses=enrolments.c.uses + 1).returning(enrolments.c.name)).scalar()


def is_enrolment_token(conn: Connection, token_hash: bytes, at: datetime) -> bool:
    """True if the enrolment token is in force."""
    return bool(conn.execute(sa.select(sa.exists().where(*_in_force(token_hash, at)))).scalar())


def enrolment_tokens(conn: Connection) -> list[EnrolmentToken]:
    """All enrolment tokens, oldest first."""
    rows = conn.execute(sa.select(enrolments).order_by(enrolments.c.made_at)).mappings()
    return [EnrolmentToken(**{name: row[name] for name in EnrolmentToken.__dataclass_fields__}) for row in rows]


def revoke_enrolment_token(conn: Connection, name: str, at: datetime) -> bool:
    open_ = (enrolments.c.name == name, enrolments.c.revoked_at.is_(None))
    return bool(conn.execute(sa.update(enrolments).where(*open_).values(revoked_at=at)).rowcount)


def _in_force(token_hash: bytes, at: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    lasts = sa.or_(enrolments.c.expires_at.is_(None), enrolments.c.expires_at > at)
    return enrolments.c.token_hash == token_hash, enrolments.c.revoked_at.is_(None), lasts


# --- answers to dequeues -----------------------------------------------------------------


def answer(conn: Connection, agent_id: str, key: str) -> list[Any] | None:
    """The tasks that were answered under a key; None if there were none. The caller holds the agent's row."""
    where = (dequeue_answers.c.agent_id == agent_id, dequeue_answers.c.key == key)
    return conn.execute(sa.select(dequeue_answers.c.body).where(*where)).scalar()


def keep_answer(conn: Connection, agent_id: str, key: str, body: list[Any], at: datetime) -> None:
    conn.execute(insert(dequeue_answers).values(agent_id=agent_id, key=key, body=body, answered_at=at))


def forget_answers(conn: Connection, at: datetime, most: int = 20_000) -> int:
    """Delete up to `most` answers that are older than KEPT, the oldest first; returns how many."""
    key = (dequeue_answers.c.agent_id, dequeue_answers.c.key)
    old = sa.select(*key).where(dequeue_answers.c.answered_at < at - KEPT)
    oldest = old.order_by(dequeue_answers.c.answered_at).limit(most)
    return conn.execute(sa.delete(dequeue_answers).where(sa.tuple_(*key).in_(oldest))).rowcount

"""Agents as rows: who they are, what they can do, when they were seen; and the tokens by which they become one."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.engine import only
from app.store.tables import Row, agents, dequeue_answers, enrolments, runs, tasks

OVERLAP = timedelta(seconds=60)  # how long a token still works after it was rotated
KEPT = timedelta(hours=24)  # how long the answer to a dequeue can be asked for again


def register(conn: Connection, given: Mapping[str, Any], token_hash: bytes, at: datetime) -> bool:
    """Write down an agent with a new token; True if it was not known. The token it had works for OVERLAP more."""
    values = {**given, "token_hash": token_hash, "seen_at": at, "gone_at": None}
    former = {"former_hash": agents.c.token_hash, "former_until": at + OVERLAP}
    known = sa.update(agents).where(agents.c.agent_id == given["agent_id"]).values(**values, **former)
    if conn.execute(known).rowcount:
        return False
    new = insert(agents).values(**values, registered_at=at).on_conflict_do_nothing()
    return bool(conn.execute(new).rowcount) or register(conn, given, token_hash, at)


def with_token(conn: Connection, token_hash: bytes, at: datetime) -> str | None:
    """The id of the agent that may speak with this token."""
    found = only(conn, _SPEAKER, hash=token_hash, at=at)
    return str(found["agent_id"]) if found else None


_SPEAKER = """
SELECT agent_id FROM agents
WHERE revoked_at IS NULL AND (token_hash = %(hash)s OR (former_hash = %(hash)s AND former_until > %(at)s))
"""


def get(conn: Connection, agent_id: str) -> Row | None:
    return conn.execute(sa.select(agents).where(agents.c.agent_id == agent_id)).mappings().first()


def hold(conn: Connection, agent_id: str) -> Row | None:
    """The agent, locked: whoever counts its free slots is alone with them."""
    query = sa.select(agents).where(agents.c.agent_id == agent_id).with_for_update(key_share=True)
    return conn.execute(query).mappings().first()


def seen(conn: Connection, agent_id: str, at: datetime) -> None:
    conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(seen_at=at))


def gone(conn: Connection, agent_id: str, at: datetime) -> None:
    conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(gone_at=at))


def revoke(conn: Connection, agent_id: str, at: datetime, void: bytes) -> None:
    """Refuse the agent from now on. Its tokens are gone for good: `void` is the hash of none that anybody has."""
    values = {"revoked_at": at, "token_hash": void, "former_hash": None}
    conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(**values))


def restore(conn: Connection, agent_id: str) -> bool:
    """Let it register again; False when there is no such agent."""
    return bool(conn.execute(sa.update(agents).where(agents.c.agent_id == agent_id).values(revoked_at=None)).rowcount)


def everybody(conn: Connection) -> list[Row]:
    """Every agent that has not left or was revoked, with the ids of the tasks it works on as `holds`."""
    held = (
        sa.select(sa.func.array_agg(tasks.c.task_id))
        .join_from(runs, tasks)
        .where(runs.c.agent_id == agents.c.agent_id, runs.c.ended_at.is_(None))
        .scalar_subquery()
    )
    here = sa.or_(agents.c.gone_at.is_(None), agents.c.revoked_at.is_not(None))
    query = sa.select(agents, held.label("holds")).where(here).order_by(agents.c.agent_id)
    return list(conn.execute(query).mappings())


# --- enrolment -------------------------------------------------------------------------------------------


def invite(conn: Connection, name: str, token_hash: bytes, at: datetime, expires_at: datetime | None) -> bool:
    """Keep a new enrolment token; False when the name is taken."""
    values = {"name": name, "token_hash": token_hash, "made_at": at, "expires_at": expires_at}
    return bool(conn.execute(insert(enrolments).values(**values).on_conflict_do_nothing()).rowcount)


def use_invitation(conn: Connection, token_hash: bytes, at: datetime) -> str | None:
    """The name of the enrolment token, if it is good now; its use is counted."""
    use = sa.update(enrolments).where(*_good(token_hash, at))
    return conn.execute(use.values(used_at=at, uses=enrolments.c.uses + 1).returning(enrolments.c.name)).scalar()


def is_invited(conn: Connection, token_hash: bytes, at: datetime) -> bool:
    """Whether the enrolment token is good now."""
    return bool(conn.execute(sa.select(sa.exists().where(*_good(token_hash, at)))).scalar())


def invitations(conn: Connection) -> list[Row]:
    return list(conn.execute(sa.select(enrolments).order_by(enrolments.c.made_at)).mappings())


def revoke_invitation(conn: Connection, name: str, at: datetime) -> bool:
    open_ = (enrolments.c.name == name, enrolments.c.revoked_at.is_(None))
    return bool(conn.execute(sa.update(enrolments).where(*open_).values(revoked_at=at)).rowcount)


def _good(token_hash: bytes, at: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    lasts = sa.or_(enrolments.c.expires_at.is_(None), enrolments.c.expires_at > at)
    return enrolments.c.token_hash == token_hash, enrolments.c.revoked_at.is_(None), lasts


# --- answers that can be asked for again -----------------------------------------------------------------


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

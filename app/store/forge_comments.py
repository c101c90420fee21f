"""Stores the ids of our comments on the forge, one per task and kind, and the signed receipts of tasks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import forge_comments, receipts


def comment_id(conn: Connection, task_pk: int, kind: str) -> int | None:
    """The forge's id of our comment of this kind, if we have written one."""
    where = (forge_comments.c.task_pk == task_pk, forge_comments.c.kind == kind)
    return conn.execute(sa.select(forge_comments.c.remote_id).where(*where)).scalar()


def save_comment_id(conn: Connection, task_pk: int, kind: str, id_: int) -> None:
    statement = insert(forge_comments).values(task_pk=task_pk, kind=kind, remote_id=id_)
    conn.execute(statement.on_conflict_do_update(index_elements=["task_pk", "kind"], set_={"remote_id": id_}))


def save_receipt(conn: Connection, task_pk: int, body: Mapping[str, Any], at: datetime) -> None:
    statement = insert(receipts).values(task_pk=task_pk, body=body, written_at=at)
    conn.execute(statement.on_conflict_do_update(index_elements=["task_pk"], set_={"body": body, "written_at": at}))

"""What we wrote on the forge and where: comments by kind, and the receipts we keep ourselves."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.store.tables import forge_comments, receipts


def remote_id(conn: Connection, task_pk: int, kind: str) -> int | None:
    """The forge's id of our comment of this kind, if we posted one."""
    where = (forge_comments.c.task_pk == task_pk, forge_comments.c.kind == kind)
    return conn.execute(sa.select(forge_comments.c.remote_id).where(*where)).scalar()


def remember(conn: Connection, task_pk: int, kind: str, remote: int) -> None:
    statement = insert(forge_comments).values(task_pk=task_pk, kind=kind, remote_id=remote)
    conn.execute(statement.on_conflict_do_update(index_elements=["task_pk", "kind"], set_={"remote_id": remote}))


def keep_receipt(conn: Connection, task_pk: int, body: dict[str, Any], at: datetime) -> None:
    statement = insert(receipts).values(task_pk=task_pk, body=body, written_at=at)
    conn.execute(statement.on_conflict_do_update(index_elements=["task_pk"], set_={"body": body, "written_at": at}))

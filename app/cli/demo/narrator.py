"""Tells a task's events as sentences, each once, as they are written down."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

from app.store import views
from app.store.tables import deliveries

ISSUE = """`total([1, 2, 3])` returns 3: the last price is left out.

## Constraints
- Keep the signature of `total`.

## Validation
- [ ] `total([1, 2, 3]) == 6`
"""

_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "requested": lambda d: f"task {d['task_id']} was created",
    "placed": lambda d: f"it was placed on {d['host_id']}, for the CLI `{d['agent_type']}`",
    "started": lambda _: "the supervisor made a worktree and its branch, and started the CLI",
    "finished": lambda d: f"the CLI is done, validation passed, {_commits(d)} pushed: {str(d['head'])[:10]}",
    "pull_opened": lambda d: f"pull request #{d['number']} stands on the forge: review_pending",
    "changes_requested": lambda d: f"changes requested by {d['by']}: the same session goes on",
    "pull_merged": lambda d: f"merged as {str(d['merge_commit'])[:10]}: completed",
    "failed": lambda d: f"the run failed: {d['reason']}: {d.get('why', '')}",
}


class Narrator:
    """Reads a task's events and tells the new ones."""

    def __init__(self, engine: Engine, say: Callable[[str], None]) -> None:
        self._engine, self._say, self._told = engine, say, 0

    def delivery(self) -> bool:
        """Whether a delivery was stored; tells of the first."""
        with self._engine.begin() as conn:
            row = conn.execute(sa.select(deliveries.c.event).order_by(deliveries.c.id).limit(1)).first()
        if row:
            self._say(f"a signed `{row.event}` delivery was stored and answered")
        return row is not None

    def reached(self, task_id: str, state: str, pulls: int) -> bool:
        """Tell what is new; whether the task is in `state` after as many openings of its pull request."""
        with self._engine.begin() as conn:
            task = views.task(conn, task_id)
        for event in (task or {"events": []})["events"][self._told :]:
            self._told += 1
            words = _WORDS.get(event["fact"], lambda _, fact=event["fact"]: fact)
            self._say(words(event["detail"]))
        opened = sum(event["fact"] == "pull_opened" for event in task["events"]) if task else 0
        return task is not None and task["status"] == state and opened >= pulls


def _commits(detail: dict[str, Any]) -> str:
    count = len(detail.get("commits") or ())
    return f"{count} commit{'s' if count != 1 else ''}"

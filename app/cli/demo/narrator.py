"""Tells the story of one task: prints each of its events as a sentence, once."""

from collections.abc import Callable, Mapping

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

Detail = Mapping[str, object]

SENTENCES: dict[str, Callable[[Detail], str]] = {
    "requested": lambda detail: f"Task {detail['task_id']} was created.",
    "placed": lambda detail: f"The task was placed on {detail['host_id']}, for the CLI `{detail['agent_type']}`.",
    "started": lambda _: "The supervisor made a worktree with a new branch and started the CLI.",
    "finished": lambda detail: f"The CLI ended, the tests passed, commit {_short(detail['head'])} was pushed.",
    "pull_opened": lambda detail: f"Pull request #{detail['number']} waits for review.",
    "changes_requested": lambda detail: f"The CLI resumes its session to answer the review by {detail['by']}.",
    "pull_merged": lambda detail: f"The task is completed: merged as {_short(detail['merge_commit'])}.",
    "failed": lambda detail: f"The run failed: {detail['reason']}: {detail.get('why', '')}",
}


class Narrator:
    """Prints the events of a task that it has not printed yet, by `say`."""

    def __init__(self, engine: Engine, say: Callable[[str], None]) -> None:
        self._engine, self._say, self._told = engine, say, 0

    def tell_delivery(self) -> bool:
        """Print the first webhook delivery. False when none has arrived."""
        with self._engine.begin() as conn:
            row = conn.execute(sa.select(deliveries.c.event).order_by(deliveries.c.id).limit(1)).first()
        if row:
            self._say(f"A signed webhook `{row.event}` arrived, was stored and answered.")
        return row is not None

    def tell_events(self, task_id: str) -> None:
        """Print the task's new events."""
        with self._engine.begin() as conn:
            task = views.task(conn, task_id)
        for event in (task or {"events": []})["events"][self._told :]:
            self._told += 1
            sentence = SENTENCES.get(event["fact"], lambda _, fact=event["fact"]: f"{fact}.")
            self._say(sentence(event["detail"]))


def _short(commit: object) -> str:
    return str(commit)[:10]

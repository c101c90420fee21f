"""Writes comments: the status of a task, notes about edits, answers to reviewers. Each is edited, never repeated."""

from collections.abc import Mapping
from typing import Any

from app.domain import forge_messages
from app.domain.forge_messages import PullNews
from app.domain.lifecycle import FactKind
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.domain.task_details import TaskDetails
from app.ports import Fleet
from app.services.outbox.target import target_of
from app.store import events, forge_comments, task_details


def write_status(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Update the status comment on the issue."""
    if task.issue_number is None:
        return
    with fleet.engine.begin() as conn:
        details = task_details.get(conn, task.id)
        news = events.newest(conn, task.id, FactKind.PULL_NEWS)
        why = events.newest_detail(conn, task.id, forge_messages.why_name(task))
        review = events.newest(conn, task.id, FactKind.CHANGES_REQUESTED) if task.review_count else None
    notes = _notes(details, review.detail if review else {})
    shown = PullNews.from_json(news.detail) if news else None
    write_comment(fleet, task, "status", forge_messages.status(task, shown, why, notes))


def write_edit_note(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Say once that an edit of the issue was noted and does not count yet."""
    if task.issue_number is not None and task.state is not State.COMPLETED:
        write_comment(fleet, task, "edited", forge_messages.edit_noted())


def answer_reviewer(fleet: Fleet, task: Task, entry: OutboxEntry) -> None:
    """Tell a reviewer why the agent changed nothing, or that no further round will start."""
    with fleet.engine.begin() as conn:
        event = events.get(conn, task.id, entry.seq)
    if task.pr_number is None or event is None:
        return None
    if event.kind is FactKind.CHANGES_REQUESTED:
        if task.reason != "review_loop_limit":  # the task was retried meanwhile
            return None
        text = forge_messages.too_many_rounds(task, str(event.detail.get("by") or "A reviewer"))
        return write_comment(fleet, task, f"limit-{entry.run}", text, task.pr_number)
    text = forge_messages.answer(entry.run, str(event.detail.get("summary") or ""))
    return write_comment(fleet, task, f"answer-{entry.run}", text, task.pr_number)


def write_comment(fleet: Fleet, task: Task, kind: str, body: str, number: int | None = None) -> None:
    """Write or edit our comment of this kind on the task's issue, or on `number`."""
    to = target_of(fleet, task)
    with fleet.engine.begin() as conn:
        known = forge_comments.comment_id(conn, task.id, kind)
    target, marker = number or task.issue_number or 0, forge_messages.marker(task, kind)
    written = to.forge.write_comment(to.name, target, marker, fleet.mask.text(body), known)
    if written != known:
        with fleet.engine.begin() as conn:
            forge_comments.save_comment_id(conn, task.id, kind, written)


def _notes(details: TaskDetails, review: Mapping[str, Any]) -> list[str]:
    """Which hidden text was removed from the prompt, and what is wrong with the repository's `.fleet.toml`."""
    hidden = (("the text", details.prompt.hidden), ("the newest review", review.get("hidden")))
    removed = [f"{', '.join(those)} in {where} were left out of the prompt" for where, those in hidden if those]
    return [*removed, *details.settings.faults]

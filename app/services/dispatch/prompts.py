"""Composes a run's prompt: the issue, a review round or a continued session."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.domain import previous_runs, prompt
from app.domain.event import Event
from app.domain.lifecycle import FactKind
from app.domain.run import Run
from app.domain.task import State, Task
from app.domain.task_details import TaskDetails
from app.store import events, views

GO_ON = "Go on where you stopped. This is what was asked:\n\n"
ROUNDS = (FactKind.CHANGES_REQUESTED, FactKind.CONFLICTED)
PROMPT_FACTS = (*ROUNDS, FactKind.FINISHED, FactKind.FAILED)  # facts that the next prompt is made from
MOST_ROUNDS = 5  # earlier review rounds in a prompt


def compose_prompts(
    conn: Connection, task: Task, run: Run, details: TaskDetails, of_task: Sequence[Run]
) -> tuple[str | None, str, str]:
    """The session to resume, the prompt for it, and the prompt for a fresh session.

    Each prompt tells what other runs did that the session does not know.
    """
    session = session_for(of_task, run)
    before = [one for one in views.run_list(conn, task.id) if one["number"] < run.number]
    _, fresh = prompt_of(conn, task, details, resume=False)
    fresh += previous_runs.write(before)
    if session is None:
        return None, fresh, fresh
    its_last = max((one["number"] for one in before if one["session"] == session), default=0)
    _, text = prompt_of(conn, task, details, session=session)
    text += previous_runs.write([one for one in before if one["number"] > its_last])
    return session, text if review_to_answer(conn, task) else f"{GO_ON}{text}", fresh


def session_for(of_task: Sequence[Run], run: Run) -> str | None:
    """The newest session of the same kind of CLI on the same host. None without one, or if the CLI said it is gone."""
    for before in reversed([one for one in of_task if one.number < run.number]):
        if (before.host_id, before.agent_type) != (run.host_id, run.agent_type):
            continue
        if (before.outcome or {}).get("failure") in ("no_session", "session_in_use"):
            return None
        if before.session:
            return str(before.session)
    return None


def prompt_of(
    conn: Connection, task: Task, details: TaskDetails, resume: bool = True, session: str | None = None
) -> tuple[str | None, str]:
    """The session to resume and its prompt: the issue, or the open review, and why the last attempt failed.

    Without `resume` the prompt repeats the whole issue.
    """
    session = (session or task.session) if resume else None
    text, goal = details.prompt.text, details.prompt.goal
    if task.run <= 1:
        return None, text
    history = events.of_kinds(conn, task.id, PROMPT_FACTS)
    since = _since_the_review(conn, task, history)
    why = next((event.detail.get("why") for event in since if event.kind == FactKind.FAILED), "") or ""
    asked = _newest_request(since)
    if asked is None:
        return None, prompt.read_again(text, why)
    review = _round_text(goal, asked, history)
    return session, prompt.read_again(review if session else f"{text}\n{review}", why)


def _round_text(goal: str, asked: Mapping[str, Any], history: list[Event]) -> str:
    """The prompt of one round: the review with its comments and earlier rounds, or the conflict to resolve."""
    if "base" in asked:
        return str(asked["text"])
    comments = [(path, line, text) for path, line, text in asked["comments"]]
    return prompt.read_review(
        goal, asked["text"], comments, asked.get("hunks") or (), _earlier_rounds(history, asked.get("review"))
    )


def _earlier_rounds(history: list[Event], review: int | None) -> list[dict[str, Any]]:
    """The rounds before this review: the request, and the final text of the run that answered it."""
    rounds: list[dict[str, Any]] = []
    for event in history:
        if event.kind == FactKind.CHANGES_REQUESTED:
            rounds.append({**event.detail, "answer": ""})
        elif event.kind == FactKind.FINISHED and rounds:
            rounds[-1]["answer"] = event.detail.get("summary") or ""
    return [one for one in rounds if one.get("review") != review][-MOST_ROUNDS:]


def review_to_answer(conn: Connection, task: Task) -> Mapping[str, Any] | None:
    """The review that requested changes and is not answered yet: by, text, comments."""
    return _newest_request(_since_the_review(conn, task, events.of_kinds(conn, task.id, ROUNDS)))


def _since_the_review(conn: Connection, task: Task, history: list[Event]) -> list[Event]:
    """The events after the task was last ready for review, newest first."""
    ready = events.last_in_state(conn, task.id, State.REVIEW_PENDING)
    return [event for event in reversed(history) if event.seq > ready]


def _newest_request(history: list[Event]) -> Mapping[str, Any] | None:
    return next((event.detail for event in history if event.kind in ROUNDS), None)

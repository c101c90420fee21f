"""What we say on the forge: comments, labels, the pull request's text. The words of others are fenced in."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from app.domain.prompt import one_line, printable
from app.domain.task import State, Task

LONGEST = 3000

_LABEL = {
    State.CREATED: "status:todo",
    State.ASSIGNED: "status:doing",
    State.RUNNING: "status:doing",
    State.REVIEW_PENDING: "status:review",
    State.PARKED: "status:blocked",
    State.COMPLETED: "status:done",
    State.FAILED: "status:blocked",
    State.AGENT_LOST: "status:blocked",
}
_MEANING = {
    "status:todo": "waiting for a place to work",
    "status:doing": "an agent is working on it",
    "status:review": "a pull request waits for review",
    "status:done": "merged",
    "status:blocked": "needs a person, or waits for a limit",
}
_NO_MARKUP = str.maketrans(dict.fromkeys("@#!<>[]()`*\\|&"))
OUR_LABELS = frozenset(_MEANING)

_SENTENCE = {
    State.CREATED: "Waiting for a place to work.",
    State.ASSIGNED: "Taken by `{place}` (run {run}).",
    State.RUNNING: "Being worked on by `{place}` (run {run}).",
    State.REVIEW_PENDING: "Pull request #{pr} waits for review.",
    State.PARKED: "Paused: {reason}.",
    State.COMPLETED: "Done.",
    State.FAILED: "Failed: {reason}. `fleet task retry` tries again.",
    State.AGENT_LOST: "`{place}` fell silent in run {run}.",
    State.CANCELLED: "Cancelled: {reason}.",
}


def marker(task: Task, kind: str) -> str:
    """The hidden last line by which we find our own comment again."""
    return f"<!-- fleet:task={quote(task.task_id, safe='/#')} kind={kind} -->"


def labels(state: State) -> dict[str, str]:
    """The status label for a state, with what it means; none for a cancelled task."""
    name = _LABEL.get(state)
    return {name: _MEANING[name]} if name else {}


def status(task: Task, told: Sequence[Mapping[str, Any]]) -> str:
    """The living comment: one sentence, and for a failure the last lines of what happened."""
    place = task.host_id or task.agent_id or "nobody"
    reason = one_line(task.reason or "no reason given", 100).replace("_", " ").translate(_NO_MARKUP)
    sentence = _SENTENCE[task.state].format(place=place, run=task.run, pr=task.pr_number, reason=reason)
    why = next((event["detail"].get("why") for event in reversed(told) if event["detail"].get("why")), None)
    shown = f"\n\n{fenced(why)}" if why and task.state in (State.FAILED, State.AGENT_LOST, State.PARKED) else ""
    return f"**agent-fleet** · {sentence}{shown}"


def receipt(proof: Mapping[str, Any]) -> str:
    """The receipt as a comment: a sentence and the JSON."""
    merged = proof.get("pull_request") or {}
    done = f"merged as {merged['merge_commit']}" if merged.get("merge_commit") else "done"
    text = fenced(json.dumps(proof, indent=2, sort_keys=True), "json", 20_000)
    return f"**agent-fleet** · receipt: {done}\n\n<details><summary>receipt</summary>\n\n{text}\n\n</details>"


def pull_body(task: Task, summary: str | None) -> str:
    """The pull request's text: what it closes, the CLI's own summary fenced in, who made it."""
    closes = f"Closes #{task.issue_number}\n\n" if task.issue_number else ""
    said = f"{fenced(summary)}\n\n" if summary else ""
    return f"{closes}{said}Made by a coding agent through agent-fleet, run {task.run}.\n\n{marker(task, 'pull')}"


def commit_message(title: str, issue_number: int | None, run: str) -> str:
    """The message of the commit with what a CLI left uncommitted."""
    refers = f"\n\nRefs #{issue_number}" if issue_number else ""
    return f"{title}{refers}\n\nFleet-Run: {run}\n"


def fenced(text: str, kind: str = "text", longest: int = LONGEST) -> str:
    """Untrusted text in a code block that it cannot leave; the end of it when it is too long."""
    cut = printable(text)[-longest:].strip()
    longest_run = max((len(run) for run in re.findall(r"`+", cut)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return f"{fence}{kind}\n{cut}\n{fence}"

"""Writes the texts that the fleet puts on the forge: comments, labels, pull requests, commits."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from app.domain.task import State, Task
from app.domain.visible_text import one_line, printable

LONGEST = 3000  # characters of a fenced text
WIP = "WIP: "

STAGES = {
    "todo": "waiting for a host or an agent",
    "doing": "an agent is working on it",
    "review": "a pull request waits for review",
    "done": "merged",
    "blocked": "needs a person, or waits for a limit to end",
}
_STAGE = {
    State.CREATED: "todo",
    State.ASSIGNED: "doing",
    State.RUNNING: "doing",
    State.REVIEW_PENDING: "review",
    State.PARKED: "blocked",
    State.COMPLETED: "done",
    State.FAILED: "blocked",
    State.AGENT_LOST: "blocked",
}
_NO_MARKUP = str.maketrans(dict.fromkeys("@#!<>[]()`*\\|&"))
_REFERENCE = re.compile(r"[#!](?=\d)|/(issues|pulls)/(?=\d)")
OUR_LABELS = {stage: f"status:{stage}" for stage in STAGES}

_SENTENCE = {
    State.CREATED: "Waiting for a host or an agent.",
    State.ASSIGNED: "Assigned to `{runner}` (run {run}).",
    State.RUNNING: "`{runner}` is working on it (run {run}).",
    State.REVIEW_PENDING: "Pull request #{pr} waits for review.",
    State.PARKED: "Paused: {reason}.",
    State.COMPLETED: "Done.",
    State.FAILED: "Failed: {reason}.",
    State.AGENT_LOST: "Run {run} failed: no heartbeat from `{runner}`.",
    State.CANCELLED: "Cancelled: {reason}.",
}
_RETRY_HINT = " To try again, comment `/retry`."
_CHECKS = {"success": "checks passed", "failure": "checks failed", "pending": "checks are running"}
_COMMIT = {
    State.ASSIGNED: "pending",
    State.RUNNING: "pending",
    State.CREATED: "pending",
    State.PARKED: "pending",
    State.REVIEW_PENDING: "success",
    State.COMPLETED: "success",
    State.FAILED: "failure",
    State.AGENT_LOST: "failure",
    State.CANCELLED: "error",
}
_SHOW_REASON = (State.FAILED, State.AGENT_LOST, State.PARKED)


@dataclass(frozen=True)
class PullNews:
    """What the status comment shows of a pull request."""

    approved_by: list[str]
    ci: str  # success, pending, failure, or "" without checks
    head: str | None
    conflict: bool  # one that no round resolves any more

    @classmethod
    def from_json(cls, detail: Mapping[str, Any]) -> "PullNews":
        return cls(detail["approved_by"], detail["ci"], detail["head"], detail["conflict"])


# --- the status of a task --------------------------------------------------------------------------------


def status(task: Task, news: PullNews | None = None, why: str | None = None, notes: Sequence[str] = ()) -> str:
    """The status comment: one sentence, the `news` of the pull request, the reason `why` a task stopped, and `notes`
    about the text and the repository."""
    parts = [f"**agent-fleet** · {sentence(task)}{_pull_news(task, news)}"]
    parts += [fenced(why)] if why else []
    parts += [f"Note: {_plain(note)}." for note in notes]
    return "\n\n".join(parts)


def sentence(task: Task) -> str:
    """The state of a task in one sentence, with a hint if a person must act."""
    return _state_sentence(task) + (_RETRY_HINT if task.state is State.FAILED else "")


def _state_sentence(task: Task) -> str:
    runner = task.host_id or task.agent_id or "nobody"
    reason = _plain((task.reason or "no reason given").replace("_", " "))
    if task.state is State.CREATED and task.run and task.reason:
        return f"Run {task.run} failed: {reason}. It will be tried again."
    return _SENTENCE[task.state].format(runner=runner, run=task.run, pr=task.pr_number, reason=reason)


def _pull_news(task: Task, news: PullNews | None) -> str:
    """Such as "Approved by alice; checks passed."."""
    if task.state is not State.REVIEW_PENDING or news is None:
        return ""
    approved = ", ".join(_plain(name) for name in news.approved_by)
    parts = [f"approved by {approved}"] if approved else []
    parts += [_CHECKS[news.ci]] if news.ci in _CHECKS else []
    parts += ["it conflicts with its base branch, and a person must resolve that"] if news.conflict else []
    text = "; ".join(parts)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def why_name(task: Task) -> str | None:
    """The field of a task's events that holds the reason for its state; None if the status shows no reason."""
    if task.state not in _SHOW_REASON:
        return None
    return "summary" if task.reason == "nothing_to_change" else "why"


def labels(state: State, names: Mapping[str, str] = OUR_LABELS) -> dict[str, str]:
    """The status label of a state (name -> description); empty for a cancelled task, or if the name is empty."""
    stage = _STAGE.get(state)
    return {names[stage]: STAGES[stage]} if stage and names.get(stage) else {}


def commit_status(task: Task) -> tuple[str, str]:
    """The state and the description of our commit status."""
    return _COMMIT[task.state], _state_sentence(task).replace("`", "")[:140]


# --- other comments --------------------------------------------------------------------------------------


def edit_noted() -> str:
    """Says that an edit of the issue does not count yet."""
    return (
        "**agent-fleet** · This issue was edited after its text was accepted. Work continues with the accepted text. "
        "To accept the new text, a person with write permission can comment `/retry`, or remove the `agent:` label and "
        "add it again."
    )


def too_many_rounds(task: Task, by: str) -> str:
    """Says on the pull request that no further review round will start."""
    rounds = f"{task.review_count} review round{'s' * (task.review_count != 1)}"
    return (
        f"**agent-fleet** · {_plain(by)} requested changes again, but this task may have only {rounds} "
        "(`max_retries`). No agent works on it any more. You can finish the work by hand on this branch. Or a person "
        "with write permission can comment `/retry` to start again with as many rounds."
    )


def answer(run: int, summary: str) -> str:
    """Gives a reviewer the agent's reason for changing nothing."""
    return f"**agent-fleet** · The agent changed nothing in run {run}. Its reason:\n\n{fenced(summary)}"


def receipt(proof: Mapping[str, Any], key: str | None = None) -> str:
    """The receipt as a comment: a sentence, the signed JSON, and how to check it."""
    merged = proof.get("pull_request") or {}
    done = f"merged as {merged['merge_commit']}" if merged.get("merge_commit") else "done"
    text = fenced(json.dumps(proof, indent=2, sort_keys=True), "json", 200_000)
    check = f"\n\nSigned with the key `{key}`. To check it, run `fleet receipt verify FILE`." if key else ""
    return f"**agent-fleet** · Receipt: {done}\n\n<details><summary>receipt</summary>\n\n{text}{check}\n\n</details>"


# --- pull requests and commits ---------------------------------------------------------------------------


def pull_title(title: str, checked: bool) -> str:
    """The pull request's title, marked as work in progress in the forge's way until its validation has passed."""
    bare = title
    while bare.lower().startswith(WIP.strip().lower()):
        bare = bare[len(WIP.strip()) :].lstrip()
    quiet = without_references(bare)
    return (quiet or "Untitled") if checked else f"{WIP}{quiet}"


def pull_body(task: Task, summary: str | None, unchecked: bool = False) -> str:
    """The pull request's text: which issue it closes, the CLI's own summary, and how it was made."""
    closes = f"Closes #{task.issue_number}\n\n" if task.issue_number else ""
    quoted = f"{fenced(summary)}\n\n" if summary else ""
    note = "Its validation was not reported, so it is marked as work in progress.\n\n" if unchecked else ""
    return (
        f"{closes}{quoted}{note}Made by a coding agent through agent-fleet, run {task.run}.\n\n{marker(task, 'pull')}"
    )


def pushed(task: Task) -> str:
    """The description of a push to `refs/for/`, on one line."""
    closes = f"Closes #{task.issue_number}. " if task.issue_number else ""
    return f"{closes}Made by a coding agent through agent-fleet, run {task.run}."


def commit_message(title: str, issue_number: int | None, run: str, trailers: Sequence[str] = ()) -> str:
    """The message of the commit with the changes that a CLI did not commit."""
    refers = f"\n\nRefs #{issue_number}" if issue_number else ""
    lines = "\n".join([f"Fleet-Run: {run}", *trailers])
    return f"{without_references(title)}{refers}\n\n{lines}\n"


def without_references(title: str) -> str:
    """A title in which `#12` is written `12`, so that the forge closes and links no other issue because of it."""
    return _REFERENCE.sub(lambda found: f" {found[1]} " if found[1] else "", title)


# --- parts -----------------------------------------------------------------------------------------------


def marker(task: Task, kind: str) -> str:
    """The hidden last line of a comment, by which we find it again."""
    return f"<!-- fleet:task={quote(task.task_id, safe='/#')} kind={kind} -->"


def fenced(text: str, kind: str = "text", longest: int = LONGEST) -> str:
    """Untrusted text in a code block that it cannot end; only the last part of a long text."""
    cut = printable(text)[-longest:].strip()
    longest_run = max((len(run) for run in re.findall(r"`+", cut)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return f"{fence}{kind}\n{cut}\n{fence}"


def _plain(words: str) -> str:
    """A few words of others inside a sentence of ours, without markup."""
    return one_line(words, 200).translate(_NO_MARKUP)

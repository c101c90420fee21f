"""What we say on the forge: comments, labels, the pull request's text. The words of others are fenced in."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from app.domain.task import State, Task
from app.domain.visible_text import one_line, printable

LONGEST = 3000
WIP = "WIP: "

STAGES = {
    "todo": "waiting for a place to work",
    "doing": "an agent is working on it",
    "review": "a pull request waits for review",
    "done": "merged",
    "blocked": "needs a person, or waits for a limit",
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
    State.CREATED: "Waiting for a place to work.",
    State.ASSIGNED: "Taken by `{place}` (run {run}).",
    State.RUNNING: "Being worked on by `{place}` (run {run}).",
    State.REVIEW_PENDING: "Pull request #{pr} waits for review.",
    State.PARKED: "Paused: {reason}.",
    State.COMPLETED: "Done.",
    State.FAILED: "Failed: {reason}. `/retry` tries again.",
    State.AGENT_LOST: "`{place}` fell silent in run {run}.",
    State.CANCELLED: "Cancelled: {reason}.",
}
_CI = {"success": "checks are green", "failure": "checks have failed", "pending": "checks are running"}
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
_SHOW_WHY = (State.FAILED, State.AGENT_LOST, State.PARKED)


def marker(task: Task, kind: str) -> str:
    """The hidden last line by which we find our own comment again."""
    return f"<!-- fleet:task={quote(task.task_id, safe='/#')} kind={kind} -->"


def labels(state: State, names: Mapping[str, str] = OUR_LABELS) -> dict[str, str]:
    """The status label for a state, with what it means; none for a cancelled task, or where its name is empty."""
    stage = _STAGE.get(state)
    return {names[stage]: STAGES[stage]} if stage and names.get(stage) else {}


def status(task: Task, news: Mapping[str, Any] | None = None, why: str | None = None, noted: Sequence[str] = ()) -> str:
    """The living comment: one sentence, what reviewers and checks say (the newest `news` of the pull request), for a
    failure `why` in the last words of what happened, and what was `noted` when the text was read."""
    parts = [f"**agent-fleet** · {sentence(task)}{_pull_news(task, news or {})}"]
    parts += [fenced(why)] if why else []
    parts += [f"Note: {_plain(note)}." for note in noted]
    return "\n\n".join(parts)


def sentence(task: Task) -> str:
    """Where a task is, in one sentence."""
    place = task.host_id or task.agent_id or "nobody"
    reason = _plain((task.reason or "no reason given").replace("_", " "))
    if task.state is State.CREATED and task.run and task.reason:
        return f"Run {task.run} did not succeed: {reason}. It is tried again."
    return _SENTENCE[task.state].format(place=place, run=task.run, pr=task.pr_number, reason=reason)


def commit_status(task: Task) -> tuple[str, str]:
    """The state and the words of our commit status."""
    words = sentence(task).replace("`", "").replace("/retry tries again.", "").strip()
    return _COMMIT[task.state], words[:140]


def _pull_news(task: Task, news: Mapping[str, Any]) -> str:
    """What the newest look at the pull request showed: "Approved by alice; checks are green."."""
    if task.state is not State.REVIEW_PENDING:
        return ""
    approved = ", ".join(_plain(name) for name in news.get("approved_by") or ())
    parts = [f"approved by {approved}"] if approved else []
    parts += [_CI[news["ci"]]] if news.get("ci") in _CI else []
    parts += ["it conflicts with its base, and a person must look at it"] if news.get("conflict") else []
    said = "; ".join(parts)
    return f" {said[0].upper()}{said[1:]}." if said else ""


def why_name(task: Task) -> str | None:
    """By which name the events of a task say why it is where it is; None where that is not asked."""
    if task.state not in _SHOW_WHY:
        return None
    return "summary" if task.reason == "nothing_to_change" else "why"


def _plain(words: str) -> str:
    """A few words of others inside a sentence of ours."""
    return one_line(words, 200).translate(_NO_MARKUP)


def edit_noted() -> str:
    """What we say when an issue was edited after its text was accepted."""
    return (
        "**agent-fleet** · The text of this issue was edited after it was taken. Work goes on with the text as it was. "
        "Somebody who may write can have the new text worked on: say `/retry`, or take the `agent:` label off and put "
        "it on again."
    )


def too_many_rounds(task: Task, by: str) -> str:
    """What we say on a pull request whose reviews would go on for ever."""
    rounds = f"{task.review_count} round{'s' * (task.review_count != 1)}"
    return (
        f"**agent-fleet** · {_plain(by)} asked for changes again, and {rounds} of review are all that this task may "
        "have (`max_retries`). No agent works on it any more. What is missing can be done by hand on this branch; or "
        "somebody who may write says `/retry`, and it begins anew with as many rounds."
    )


def answer(run: int, summary: str) -> str:
    """The agent's own words to a reviewer whose remarks it did not follow."""
    return f"**agent-fleet** · The agent changed nothing in run {run}, and says why:\n\n{fenced(summary)}"


def receipt(proof: Mapping[str, Any], key: str | None = None) -> str:
    """The receipt as a comment: a sentence, the signed JSON, and how to check it."""
    merged = proof.get("pull_request") or {}
    done = f"merged as {merged['merge_commit']}" if merged.get("merge_commit") else "done"
    text = fenced(json.dumps(proof, indent=2, sort_keys=True), "json", 200_000)
    check = f"\n\nSigned with the key `{key}`; `fleet receipt verify FILE` checks it." if key else ""
    return f"**agent-fleet** · receipt: {done}\n\n<details><summary>receipt</summary>\n\n{text}{check}\n\n</details>"


def pull_title(title: str, checked: bool) -> str:
    """The pull request's title; one whose validation did not pass yet says so in the forge's own way."""
    bare = title
    while bare.lower().startswith(WIP.strip().lower()):
        bare = bare[len(WIP.strip()) :].lstrip()
    quiet = without_references(bare)
    return (quiet or "Untitled") if checked else f"{WIP}{quiet}"


def without_references(title: str) -> str:
    """A title of others that names an issue or a pull request in such a way that the forge would close it, or note it
    there, says the number alone."""
    return _REFERENCE.sub(lambda found: f" {found[1]} " if found[1] else "", title)


def pull_body(task: Task, summary: str | None, unchecked: bool = False) -> str:
    """The pull request's text: what it closes, the CLI's own summary fenced in, who made it."""
    closes = f"Closes #{task.issue_number}\n\n" if task.issue_number else ""
    said = f"{fenced(summary)}\n\n" if summary else ""
    open_ = "Its validation was not reported, so it is marked as work in progress.\n\n" if unchecked else ""
    return f"{closes}{said}{open_}Made by a coding agent through agent-fleet, run {task.run}.\n\n{marker(task, 'pull')}"


def pushed(task: Task) -> str:
    """What a push to `refs/for/` says of itself, on one line."""
    closes = f"Closes #{task.issue_number}. " if task.issue_number else ""
    return f"{closes}Made by a coding agent through agent-fleet, run {task.run}."


def commit_message(title: str, issue_number: int | None, run: str, trailers: Sequence[str] = ()) -> str:
    """The message of the commit with what a CLI left uncommitted."""
    refers = f"\n\nRefs #{issue_number}" if issue_number else ""
    lines = "\n".join([f"Fleet-Run: {run}", *trailers])
    return f"{without_references(title)}{refers}\n\n{lines}\n"


def fenced(text: str, kind: str = "text", longest: int = LONGEST) -> str:
    """Untrusted text in a code block that it cannot leave; the end of it when it is too long."""
    cut = printable(text)[-longest:].strip()
    longest_run = max((len(run) for run in re.findall(r"`+", cut)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return f"{fence}{kind}\n{cut}\n{fence}"

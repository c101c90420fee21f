"""Opens a task's pull request, or adopts the one that exists, and keeps its title and text right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain import forge_messages
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Fact, FactKind
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.domain.task_details import TaskDetails
from app.ports import Fleet, Pull
from app.services import facts
from app.services.forge import forbidden_paths, permissions
from app.services.outbox.target import Target, target_of
from app.store import events, task_details, views

MOST_TRIES = 12  # to find a pushed commit on the forge: about half an hour


@dataclass(frozen=True)
class _Work:
    """What a run delivered. `pushed` is its newest commit; `checked` says that its validation passed."""

    fleet: Fleet
    task: Task
    entry: OutboxEntry
    to: Target
    pushed: str | None
    checked: bool


def open_pull(fleet: Fleet, task: Task, entry: OutboxEntry) -> None:
    """Open the pull request of the task's branch, once the branch is on the forge. Raises Refused if it changes a
    forbidden path."""
    if task.state is not State.RUNNING or task.run != entry.run:
        return
    to = target_of(fleet, task)
    with fleet.engine.begin() as conn:
        details, runs = task_details.get(conn, task.id), views.run_list(conn, task.id)
        finished = events.newest(conn, task.id, FactKind.FINISHED)
    pushed = finished.detail.get("head") if finished else None
    work = _Work(fleet, task, entry, to, pushed, is_checked(details, runs))
    topic = _pull_of_topic(work) if details.settings.flow == "agit" else None
    pull, head = topic or _pull_of_branch(work)
    changed = forbidden_paths.changed_forbidden(fleet, to.forge, to.name, task, pull)
    sync_title_and_text(fleet, to, task, pull, work.checked and not changed)
    if changed:
        raise forbidden_paths.refusal(pull, changed)
    known = {"number": pull.number, "title": pull.title, "url": pull.url, "head": head}
    facts.record_if_news(fleet, task, Fact(FactKind.PULL_OPENED, known, run=task.run))
    fleet.nudge.soon()


def mark_checked(fleet: Fleet, task: Task) -> None:
    """Remove the mark of work in progress from the task's pull request: its validation has passed."""
    if task.pr_number is None or not task.live:
        return
    to = target_of(fleet, task)
    pull = to.forge.pull(to.name, task.pr_number)
    if pull and pull.open:
        changed = forbidden_paths.changed_forbidden(fleet, to.forge, to.name, task, pull)
        sync_title_and_text(fleet, to, task, pull, not changed)


def is_checked(details: TaskDetails, runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the validation passed. A run whose validation failed does not get here, so it is enough that the newest
    run reported one."""
    newest = runs[-1] if runs else {}
    return not details.validation or bool(newest.get("validation") or newest.get("checks"))


def sync_title_and_text(fleet: Fleet, to: Target, task: Task, pull: Pull, checked: bool) -> None:
    """Mark our pull request as work in progress until it is `checked`. Write the whole text of one that a push made,
    since a push holds one line only. Pull requests of others are not changed."""
    if pull.author.id != to.forge.bot().id:
        return
    wanted = forge_messages.pull_title(pull.title, checked)
    if checked == pull.draft and wanted != pull.title:
        to.forge.set_pull_title(to.name, pull.number, wanted)
    if pull.flow and forge_messages.marker(task, "pull") not in pull.body:
        to.forge.set_pull_body(to.name, pull.number, _text(fleet, task, checked))


def _pull_of_topic(work: _Work) -> tuple[Pull, str] | None:
    """The pull request that the push to `refs/for/` made, and its newest commit. None if there is none: an agent with
    write permission may have pushed a branch instead."""
    heads = {work.pushed} if work.pushed else ()
    pull = work.to.forge.find_open_pull(work.to.name, work.task.branch or "", work.to.base, heads)
    return (pull, work.pushed or pull.head) if pull and pull.flow else None


def _pull_of_branch(work: _Work) -> tuple[Pull, str]:
    """The pull request from the task's branch, created if there is none, and the branch's newest commit.

    One by an author who certainly lacks write permission is closed: every reader can open one from any branch.
    """
    to, task = work.to, work.task
    head = _branch_head(work)
    pull = to.forge.find_pull(to.name, task.branch or "", to.base)
    if pull is None or not pull.open:
        pull = _create(work)
    author = pull.author.login
    is_known = pull.number == task.pr_number or pull.author.id == to.forge.bot().id
    if not is_known and permissions.may_not_write(to.forge, to.name, author):
        to.forge.close_pull(to.name, pull.number)
        raise Unavailable(
            f"Pull request #{pull.number} from our branch is by {author}, who has no write permission: it was closed."
        )
    return pull, head


def _branch_head(work: _Work) -> str:
    """The branch's newest commit: the run's own, or one on top of it. Read from the branch, since the forge shows it in
    the pull request a moment late."""
    to, branch, pushed = work.to, work.task.branch or "", work.pushed
    head = to.forge.branch_head(to.name, branch)
    if head is None:
        raise _missing(work.entry, f"The branch {branch} is not on the forge.")
    if pushed not in (None, head) and not to.forge.contains(to.name, head, str(pushed)):
        raise _missing(work.entry, f"The branch {branch} is at {head[:10]}, without {str(pushed)[:10]} of this run.")
    return head


def _missing(entry: OutboxEntry, sentence: str) -> Refused:
    """A pushed commit may take a while to appear on the forge. After MOST_TRIES it is missing for good."""
    return Unavailable(sentence) if entry.tries < MOST_TRIES else Refused(Kind.UNKNOWN, sentence)


def _create(work: _Work) -> Pull:
    to, task = work.to, work.task
    with work.fleet.engine.begin() as conn:
        details = task_details.get(conn, task.id)
    title = forge_messages.pull_title(details.title, work.checked and not details.settings.forbidden_paths)
    return to.forge.create_pull(to.name, task.branch or "", to.base, title, _text(work.fleet, task, work.checked))


def _text(fleet: Fleet, task: Task, checked: bool) -> str:
    with fleet.engine.begin() as conn:
        summary = next((run["summary"] for run in reversed(views.run_list(conn, task.id)) if run["summary"]), None)
    return fleet.mask.text(forge_messages.pull_body(task, summary, unchecked=not checked))

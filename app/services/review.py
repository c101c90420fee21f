"""Follows a pull request: opened, asked to change, merged, closed. The forge is asked; the answer becomes facts."""

from datetime import datetime, timedelta

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, What
from app.domain.task import State, Task
from app.ports import Fleet, Forge, Pull, Review
from app.store import places, tasks

LONGEST_REVIEW = 20_000


def look_at_pull(fleet: Fleet, task: Task, full_name: str, number: int | None) -> str:
    """Bring a task in line with its pull request (by `number`, else by its branch); returns what was found."""
    forge = fleet.forges(task.forge or "")
    pull = forge.pull(full_name, number) if number else _by_branch(fleet, forge, task, full_name)
    if pull is None or not _is_of(task, pull):
        return f"{task.task_id} has no such pull request on the forge"
    for fact in _facts(fleet, forge, task, full_name, pull):
        task = hear(fleet, task, fact)
    fleet.nudge.soon()
    return f"{task.task_id} is {task.state}"


def hear(fleet: Fleet, task: Task, fact: Fact) -> Task:
    """Record what the forge says. What moves nothing now is no error: it may have been heard before."""
    try:
        with fleet.engine.begin() as conn:
            return tasks.record(conn, task.id, fact, fleet.clock())
    except Refused as refusal:
        if refusal.kind is not Kind.INVALID:
            raise
        return task


def _by_branch(fleet: Fleet, forge: Forge, task: Task, full_name: str) -> Pull | None:
    with fleet.engine.begin() as conn:
        repository = places.repository(conn, forge.name, task.repository_id or 0)
    return forge.pull_for(full_name, task.branch or "", repository["default_branch"]) if repository else None


def _is_of(task: Task, pull: Pull) -> bool:
    """Whether the pull request comes from the task's own branch: a fork may have one of the same name."""
    return pull.branch == task.branch or pull.number == task.pr_number


def _facts(fleet: Fleet, forge: Forge, task: Task, full_name: str, pull: Pull) -> list[Fact]:
    """What the state of the pull request says, in the order in which it must have happened."""
    known = {"number": pull.number, "title": pull.title, "url": pull.url, "head": pull.head}
    if pull.merged:
        merged = {"merge_commit": pull.merge_commit, "merged_by": pull.merged_by}
        return [Fact(What.PULL_MERGED, known | merged)]
    if not pull.open:
        return [Fact(What.PULL_CLOSED, {"number": pull.number}, key=f"pull {pull.number} closed {pull.closed_at}")]
    opened = [] if task.pr_number else [Fact(What.PULL_OPENED, known)]
    if task.state is State.CANCELLED:
        opened = [Fact(What.PULL_REOPENED, known)]
    reviews = forge.reviews_asking_for_changes(full_name, pull.number)
    return opened + [_asked_to_change(review, _confirm_by(fleet, task)) for review in reviews]


def _confirm_by(fleet: Fleet, task: Task) -> datetime:
    """When a round must have begun: a host is told at once, an agent when it beats."""
    patience = fleet.config.confirm_secs if task.host_id else fleet.config.offline_after_secs
    return fleet.clock() + timedelta(seconds=patience)


def _asked_to_change(review: Review, until: datetime) -> Fact:
    """One round for each review, by its id, however often it is heard of; it must be confirmed by `until`."""
    comments = [[path, line, text[:LONGEST_REVIEW]] for path, line, text in review.comments[:100]]
    detail = {
        "review": review.id, "by": review.by, "text": review.text[:LONGEST_REVIEW], "comments": comments,
        "until": until.isoformat(),
    }  # fmt: skip
    return Fact(What.CHANGES_REQUESTED, detail, key=f"review {review.id}")

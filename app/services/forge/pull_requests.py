"""Syncs a task with its pull request on the forge: opened, reviewed, merged, closed."""

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import WORKING, State, Task
from app.ports import Fleet, Forge, Pull
from app.services.facts import OFFERS, record_if_news
from app.services.forge import forbidden_paths, permissions
from app.services.forge.review_rounds import apply_reviews
from app.store import repositories, task_details


def sync_pull(fleet: Fleet, task: Task, full_name: str, number: int | None) -> str:
    """Sync a task with its pull request, found by `number`, else by its branch; returns what was found, as a sentence.

    Raises TooEarly while more of a review may follow.
    """
    forge = fleet.forges(task.forge or "")
    pull = _find_pull(fleet, forge, task, full_name, number)
    if pull is None:
        return f"{task.task_id} has no such pull request on the forge"
    facts = _facts(task, pull)
    if pull.number != task.pr_number and any(fact.kind in OFFERS for fact in facts):
        why = _reason_to_reject(fleet, forge, full_name, task, pull)
        if why:
            return f"{task.task_id} goes on: pull request {pull.number} {why}"
    for fact in facts:
        task = record_if_news(fleet, task, fact)
    if pull.open and task.state is State.REVIEW_PENDING and task.pr_number == pull.number:
        task = apply_reviews(fleet, forge, task, full_name, pull)
    fleet.nudge.soon()
    return f"{task.task_id} is {task.state}"


def record_merge(fleet: Fleet, task: Task, full_name: str) -> None:
    """Record that a task's pull request was merged, if it was."""
    forge = fleet.forges(task.forge or "")
    pull = _find_pull(fleet, forge, task, full_name, task.pr_number)
    for fact in _facts(task, pull) if pull and pull.merged else ():
        record_if_news(fleet, task, fact)


def _find_pull(fleet: Fleet, forge: Forge, task: Task, full_name: str, number: int | None) -> Pull | None:
    """The task's pull request; None for one from the same branch into another base."""
    with fleet.engine.begin() as conn:
        repository = repositories.repository(conn, forge.name, task.repository_id)
        settings = task_details.get(conn, task.id).settings
    if repository is None:
        return None
    base = repository.default_branch
    find = forge.find_open_pull if settings.flow == "agit" else forge.find_pull
    pull = forge.pull(full_name, number) if number else find(full_name, task.branch or "", base)
    return pull if pull and is_of(task, pull, forge.bot().id, base) else None


def is_of(task: Task, pull: Pull, bot: int, base: str) -> bool:
    """Whether a pull request belongs to a task: from the task's own branch into the default branch.

    A branch of the same name in a fork does not count, nor does a pull request into another base: every reader may open
    such. A push to `refs/for/` puts the pusher's name before the topic; it counts only if it is ours.
    """
    if pull.repository_id and pull.repository_id != task.repository_id:
        return False
    if pull.number != task.pr_number and pull.base != base:
        return False
    topic = bool(pull.flow) and pull.author.id == bot and pull.branch.endswith(f"/{task.branch}")
    return pull.branch == task.branch or pull.number == task.pr_number or topic


def _facts(task: Task, pull: Pull) -> list[Fact]:
    """The facts that follow from a pull request's state; none from a draft while its run goes on."""
    known = {"number": pull.number, "title": pull.title, "url": pull.url, "head": pull.head}
    if pull.merged:
        merged = {"merge_commit": pull.merge_commit, "merged_by": pull.merged_by}
        return [Fact(FactKind.PULL_MERGED, known | merged)]
    if not pull.open:
        return [Fact(FactKind.PULL_CLOSED, {"number": pull.number}, key=f"pull {pull.number} closed {pull.closed_at}")]
    if task.state is State.CANCELLED:
        return [Fact(FactKind.PULL_REOPENED, known)]
    is_draft = pull.draft and task.state in WORKING
    return [] if task.pr_number or is_draft else [Fact(FactKind.PULL_OPENED, known)]


def _reason_to_reject(fleet: Fleet, forge: Forge, full_name: str, task: Task, pull: Pull) -> str | None:
    """Why an open pull request is not accepted as the task's; None if it is."""
    if pull.author.id != forge.bot().id and not permissions.may_write(forge, full_name, pull.author.login):
        return f"is by {pull.author.login}, who has no write permission"
    changed = forbidden_paths.changed_forbidden(fleet, forge, full_name, task, pull) if task.agent_id else []
    return f"changes what .fleet.toml forbids: {', '.join(changed[:10])}" if changed else None

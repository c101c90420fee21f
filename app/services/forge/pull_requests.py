"""Follows a pull request: opened, talked about, merged, closed. The forge is asked; the answer becomes facts."""

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import WORKING, State, Task
from app.ports import Fleet, Forge, Pull
from app.services.facts import OFFERS, record_if_news
from app.services.forge import forbidden_paths, permissions
from app.services.forge.review_rounds import apply_reviews
from app.store import repositories, views


def sync_pull(fleet: Fleet, task: Task, full_name: str, number: int | None) -> str:
    """Bring a task in line with its pull request (by `number`, else by its branch); returns what was found. Raises
    TooEarly while a review may not be finished yet."""
    forge = fleet.forges(task.forge or "")
    pull = _pull_of(fleet, forge, task, full_name, number)
    if pull is None:
        return f"{task.task_id} has no such pull request on the forge"
    facts = _facts(task, pull)
    if pull.number != task.pr_number and any(fact.kind in OFFERS for fact in facts):
        why = _not_offered(fleet, forge, full_name, task, pull)
        if why:
            return f"{task.task_id} goes on: pull request {pull.number} {why}"
    for fact in facts:
        task = record_if_news(fleet, task, fact)
    if pull.open and task.state is State.REVIEW_PENDING and task.pr_number == pull.number:
        task = apply_reviews(fleet, forge, task, full_name, pull)
    fleet.nudge.soon()
    return f"{task.task_id} is {task.state}"


def record_merge(fleet: Fleet, task: Task, full_name: str) -> None:
    """Hear that a task's pull request was merged, if it was, and nothing else of it."""
    forge = fleet.forges(task.forge or "")
    pull = _pull_of(fleet, forge, task, full_name, task.pr_number)
    for fact in _facts(task, pull) if pull and pull.merged else ():
        record_if_news(fleet, task, fact)


def _pull_of(fleet: Fleet, forge: Forge, task: Task, full_name: str, number: int | None) -> Pull | None:
    """The task's pull request; None for any other that somebody opened from its branch, into whatever base."""
    with fleet.engine.begin() as conn:
        repository = repositories.repository(conn, forge.name, task.repository_id or 0)
        brief = views.brief(conn, task.id)
    if repository is None:
        return None
    base = repository.default_branch
    find = forge.find_open_pull if (brief["settings"] or {}).get("flow") == "agit" else forge.find_pull
    pull = forge.pull(full_name, number) if number else find(full_name, task.branch or "", base)
    return pull if pull and is_of(task, pull, forge.bot().id, base) else None


def is_of(task: Task, pull: Pull, bot: int, base: str) -> bool:
    """Whether the pull request comes from the task's own branch, not from one of the same name in a fork, and goes into
    the default branch: into others anybody may open more. One that was pushed to `refs/for/` bears the pusher's name
    before it; whoever may read can push one, so only our own count."""
    if pull.repository_id and pull.repository_id != task.repository_id:
        return False
    if pull.number != task.pr_number and pull.base != base:
        return False
    topic = bool(pull.flow) and pull.author.id == bot and pull.branch.endswith(f"/{task.branch}")
    return pull.branch == task.branch or pull.number == task.pr_number or topic


def _facts(task: Task, pull: Pull) -> list[Fact]:
    """What the state of the pull request says. One that is still a draft while its run goes on is not offered yet."""
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


def _not_offered(fleet: Fleet, forge: Forge, full_name: str, task: Task, pull: Pull) -> str | None:
    """Why an open pull request is not taken for the task's; None where it is."""
    if pull.author.id != forge.bot().id and not permissions.may_write(forge, full_name, pull.author.login):
        return f"is by {pull.author.login}, who may not write here"
    hit = forbidden_paths.changed_forbidden(fleet, forge, full_name, task, pull) if task.agent_id else []
    return f"changes what .fleet.toml forbids: {', '.join(hit[:10])}" if hit else None


# --- an open pull request that waits: reviews, checks, conflicts -----------------------------------------

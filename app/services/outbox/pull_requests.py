"""Offers finished work for review: the pull request, its title, who is asked to look at it, the commit's status."""

from typing import Any
from urllib.parse import quote

from app.domain import forge_messages
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Fact, FactKind
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.ports import Fleet, Forge, Pull
from app.services import facts
from app.services.forge import forbidden_paths, permissions
from app.store import repositories, views
from app.store.tables import Row

MOST_TRIES = 12  # for a commit that was pushed and is not seen on the forge: about half an hour


def open_pull(fleet: Fleet, task: Task, entry: OutboxEntry) -> None:
    """Have a pull request from the task's branch, once the branch is on the forge."""
    if task.state is not State.RUNNING or task.run != entry.run:
        return
    forge, name, base = repository_of(fleet, task)
    with fleet.engine.begin() as conn:
        brief, runs = views.brief(conn, task.id), views.run_list(conn, task.id)
        finished = views.newest_event(conn, task.id, (FactKind.FINISHED,))
    settings, checked = brief["settings"] or {}, is_checked(brief, runs)
    pushed = finished["detail"].get("head") if finished else None
    topic = _pushed_pull(forge, task, name, base, pushed) if settings.get("flow") == "agit" else None
    pull, head = topic or _branch_pull(fleet, forge, task, name, base, entry, checked, pushed)
    hit = forbidden_paths.changed_forbidden(fleet, forge, name, task, pull)
    _put_right(fleet, forge, name, task, pull, checked and not hit)
    if hit:
        raise forbidden_paths.refusal(pull, hit)
    known = {"number": pull.number, "title": pull.title, "url": pull.url, "head": head}
    facts.record_if_news(fleet, task, Fact(FactKind.PULL_OPENED, known, run=task.run))
    fleet.nudge.soon()


def checked(fleet: Fleet, task: Task) -> None:
    """The validation passed after all: the pull request, if there is one, is work in progress no longer."""
    if task.pr_number is None or not task.live:
        return
    forge, name, _base = repository_of(fleet, task)
    pull = forge.pull(name, task.pr_number)
    if pull and pull.open:
        _put_right(
            fleet, forge, name, task, pull, not forbidden_paths.changed_forbidden(fleet, forge, name, task, pull)
        )


def ask_review(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Ask the people that the repository names to look at the pull request. One that an agent opened is marked as work
    in progress first, where nobody has told how its validation ended."""
    if task.pr_number is None or task.state is not State.REVIEW_PENDING:
        return
    with fleet.engine.begin() as conn:
        brief, runs = views.brief(conn, task.id), views.run_list(conn, task.id)
    forge, name, _base = repository_of(fleet, task)
    pull = forge.pull(name, task.pr_number)
    if pull is None or not pull.open:
        return
    _put_right(fleet, forge, name, task, pull, is_checked(brief, runs))
    reviewers = (brief["settings"] or {}).get("reviewers") or []
    others = [login for login in reviewers if login.lower() != pull.author.login.lower()]
    if others:
        forge.request_reviews(name, task.pr_number, others)


def set_status(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Show on the newest commit how the task stands, with a link to it."""
    if task.head is None or task.forge is None:
        return
    forge, name, _base = repository_of(fleet, task)
    state, words = forge_messages.commit_status(task)
    target = f"{fleet.config.public_url}/tasks/{quote(task.task_id, safe='')}"
    forge.set_commit_status(name, task.head, state, target, words)


def repository_of(fleet: Fleet, task: Task) -> tuple[Forge, str, str]:
    """The task's forge, and its repository's present name and default branch."""
    with fleet.engine.begin() as conn:
        row = repositories.repository(conn, task.forge, task.repository_id)
    if row is None:
        raise Unavailable(f"{task.task_id}: its repository is not known yet.")
    if not row.full_name:
        raise Refused(Kind.UNKNOWN, f"{task.task_id}: its repository is not on the forge any more.")
    return fleet.forges(task.forge or ""), row.full_name, row.default_branch


def _branch_pull(
    fleet: Fleet, forge: Forge, task: Task, name: str, base: str, entry: OutboxEntry, checked: bool, pushed: str | None
) -> tuple[Pull, str]:
    """The pull request, and the branch's newest commit: the forge notes it on the pull request a moment later. It is
    the run's own commit, or one that somebody put on top of it."""
    head = forge.branch_head(name, task.branch or "")
    if head is None:
        raise _missing(f"The branch {task.branch} is not on the forge.", entry)
    if pushed not in (None, head) and not forge.contains(name, head, str(pushed)):
        raise _missing(f"The branch {task.branch} is at {head[:10]}, without {str(pushed)[:10]} of this run.", entry)
    pull = forge.find_pull(name, task.branch or "", base)
    if pull is None or not pull.open:
        pull = _open(fleet, forge, task, name, base, checked)
    who = pull.author.login
    is_known = pull.number == task.pr_number or pull.author.id == forge.bot().id
    if not is_known and permissions.may_not_write(forge, name, who):  # whoever may read can open one from any branch
        forge.close_pull(name, pull.number)
        raise Unavailable(f"Pull request #{pull.number} from our branch is by {who}, who may not write: it was closed.")
    return pull, head


def _pushed_pull(forge: Forge, task: Task, name: str, base: str, pushed: str | None) -> tuple[Pull, str] | None:
    """The pull request that the push to `refs/for/` has made. None while there is none: whoever may write can have
    pushed a branch instead."""
    pull = forge.find_open_pull(name, task.branch or "", base, {pushed} if pushed else ())
    return (pull, pushed or pull.head) if pull and pull.flow else None


def _missing(sentence: str, entry: OutboxEntry) -> Refused:
    """A pushed commit may take a while to be seen on the forge: after MOST_TRIES it is missing for good."""
    return Unavailable(sentence) if entry.tries < MOST_TRIES else Refused(Kind.UNKNOWN, sentence)


def _open(fleet: Fleet, forge: Forge, task: Task, name: str, base: str, checked: bool) -> Pull:
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
    title = forge_messages.pull_title(brief["title"], checked and not forbidden_paths.forbidden(fleet, task))
    return forge.create_pull(name, task.branch or "", base, title, _body(fleet, task, checked))


def _body(fleet: Fleet, task: Task, checked: bool) -> str:
    with fleet.engine.begin() as conn:
        summary = next((run["summary"] for run in reversed(views.run_list(conn, task.id)) if run["summary"]), None)
    return fleet.mask.text(forge_messages.pull_body(task, summary, unchecked=not checked))


def is_checked(brief: Row, runs: list[dict[str, Any]]) -> bool:
    """Whether the repository's validation passed: the newest run would have failed else, unless nobody reported it."""
    newest = runs[-1] if runs else {}
    return not brief["validation"] or bool(newest.get("validation") or newest.get("checks"))


def _put_right(fleet: Fleet, forge: Forge, name: str, task: Task, pull: Pull, checked: bool) -> None:
    """A pull request of ours is work in progress until its validation passed, and one that a push made has said of
    itself what fits on a line. What others call theirs is theirs."""
    if pull.author.id != forge.bot().id:
        return
    wanted = forge_messages.pull_title(pull.title, checked)
    if checked == pull.draft and wanted != pull.title:
        forge.set_pull_title(name, pull.number, wanted)
    if pull.flow and forge_messages.marker(task, "pull") not in pull.body:
        forge.set_pull_body(name, pull.number, _body(fleet, task, checked))

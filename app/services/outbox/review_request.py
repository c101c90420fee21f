"""Requests reviews of a task's pull request, and sets the status of its newest commit."""

from urllib.parse import quote

from app.domain import forge_messages
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.ports import Fleet
from app.services.outbox.open_pull_request import is_checked, sync_title_and_text
from app.services.outbox.target import target_of
from app.store import task_details, views


def request_reviews(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Request reviews from the repository's reviewers. A pull request that an agent opened is first marked as work in
    progress, if its validation was not reported."""
    if task.pr_number is None or task.state is not State.REVIEW_PENDING:
        return
    with fleet.engine.begin() as conn:
        details, runs = task_details.get(conn, task.id), views.run_list(conn, task.id)
    to = target_of(fleet, task)
    pull = to.forge.pull(to.name, task.pr_number)
    if pull is None or not pull.open:
        return
    sync_title_and_text(fleet, to, task, pull, is_checked(details, runs))
    others = [login for login in details.settings.reviewers if login.lower() != pull.author.login.lower()]
    if others:
        to.forge.request_reviews(to.name, task.pr_number, others)


def set_commit_status(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Show the state of the task on its newest commit, with a link to the task."""
    if task.head is None or task.forge is None:
        return
    to = target_of(fleet, task)
    state, description = forge_messages.commit_status(task)
    url = f"{fleet.config.public_url}/tasks/{quote(task.task_id, safe='')}"
    to.forge.set_commit_status(to.name, task.head, state, url, description)

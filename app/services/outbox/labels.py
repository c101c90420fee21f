"""Sets the status label of a task's issue, and assigns the issue to the bot."""

from collections.abc import Mapping

from app.domain import forge_messages
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.ports import Fleet
from app.services.forge import issue_text
from app.services.outbox.target import target_of
from app.store import fleet_config


def set_status_label(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Put the status label of the task's current state on its issue, and remove our others."""
    if task.issue_number is None:
        return
    to = target_of(fleet, task)
    if task.state is State.FAILED:
        issue_text.ignore_earlier_labels(fleet, to.forge, to.name, task)
    names = _label_names(fleet, task)
    ours = frozenset(names.values()) - {""}
    to.forge.set_labels(to.name, task.issue_number, forge_messages.labels(task.state, names), ours)


def assign_bot(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Add the bot to the issue's assignees, so that people see who works on it."""
    if task.issue_number is not None and task.live:
        to = target_of(fleet, task)
        to.forge.assign_bot(to.name, task.issue_number)


def _label_names(fleet: Fleet, task: Task) -> Mapping[str, str]:
    with fleet.engine.begin() as conn:
        record = fleet_config.forge(conn, task.forge)
    return {**forge_messages.OUR_LABELS, **(record.labels if record else {})}

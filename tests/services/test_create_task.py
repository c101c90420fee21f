"""Tasks by API request: with and without a repository."""

import pytest

from app.domain.errors import Refused
from app.domain.task import Priority
from app.services import create_task
from app.store import tasks
from tests.workshop import WIDGETS, Workshop

REQUEST: create_task.TaskRequest = {
    "title": "Count", "requirements": "Count them.", "repository": None, "required_capabilities": ["agent:Python", "python", "rust"],
    "priority": "high", "execution_mode": "undecided", "max_retries": 1, "wants_pull_request": True,
}  # fmt: skip


def test_a_request_needs_no_repository_and_then_wants_no_pull_request(workshop: Workshop) -> None:
    task = create_task.request(workshop.fleet, REQUEST)
    assert (task.task_id, task.branch, task.wants_pull, task.priority) == (f"api#{task.id}", None, False, Priority.HIGH)
    with workshop.fleet.engine.begin() as conn:
        assert tasks.load(conn, task.id) == task


def test_each_request_in_a_repository_has_its_own_branch(workshop: Workshop) -> None:
    first = create_task.request(workshop.fleet, REQUEST | {"repository": WIDGETS})
    second = create_task.request(workshop.fleet, REQUEST | {"repository": WIDGETS})
    assert (first.branch, second.branch) == (f"task/api-{first.id}-count", f"task/api-{second.id}-count")
    assert first.wants_pull and first.repository_id == workshop.forge.repository(WIDGETS).id


@pytest.mark.parametrize("name", ["other/repo", "acme/unknown"])
def test_a_request_for_an_unknown_repository_is_refused_by_name(workshop: Workshop, name: str) -> None:
    with pytest.raises(Refused, match=f"repository: '{name}'"):
        create_task.request(workshop.fleet, REQUEST | {"repository": name})

"""Pull requests by a push to `refs/for/`: no branch, one pull request, moved by each further round."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.domain import forge_messages
from app.domain.task import State
from tests import builders
from tests.conftest import FakeClock
from tests.patience import wait_until
from tests.workshop import REPO, Workshop
from workers.runs import poll, start_stop
from workers.worker import Worker

CODER: dict[str, Any] = {
    "argv": ["sh", "-c", "cat > prompt.md; echo more >> total.py"], "prompt": "stdin", "resume": None, "parser": "raw",
    "timeout_secs": 60, "silence_secs": 60, "env": {},
}  # fmt: skip


def work_to_the_end(workshop: Workshop, clock: FakeClock) -> None:
    """Start the run that is due, and poll its host until it has ended."""
    with closing(Worker(workshop.fleet)) as worker:
        start_stop.deliver_due(worker)
        wait_until(
            lambda: poll.poll_due(worker), "the end of the run", 60, meanwhile=lambda: clock.pass_(1), pause=0.05
        )
    workshop.converge()


@pytest.fixture
def agit(workshop: Workshop, tmp_path: Path) -> Workshop:
    rule = builders.declared()["repositories"][0] | {"flow": "agit"}
    host = builders.a_host(work_dir=str(tmp_path / "host"))
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[rule], hosts=[host], clis={"coder": CODER})
    return workshop


def test_a_push_makes_the_pull_request_and_a_round_moves_it(agit: Workshop, clock: FakeClock) -> None:
    number = agit.placed()
    work_to_the_end(agit, clock)
    task = agit.task(number)
    pull = agit.people["alice"].get(f"{REPO}/pulls/{task.pr_number}").json()
    assert (task.state, pull["flow"], pull["head"]["label"]) == (State.REVIEW_PENDING, 1, f"fleet/{task.branch}")
    assert pull["title"] == "Fix the total" and pull["body"].startswith(f"Closes #{number}\n")
    assert forge_messages.marker(task, "pull") in pull["body"], "the forge knew one line of it, we put the whole there"
    assert [one["name"] for one in agit.people["alice"].get(f"{REPO}/branches").json()] == ["main"]
    agit.review(task.pr_number or 0)
    agit.converge()
    work_to_the_end(agit, clock)
    after = agit.task(number)
    assert (after.state, after.run, agit.pulls()) == (State.REVIEW_PENDING, 2, [task.pr_number])
    assert after.head != task.head
    agit.merge(task.pr_number or 0)
    agit.converge()
    assert agit.task(number).state is State.COMPLETED

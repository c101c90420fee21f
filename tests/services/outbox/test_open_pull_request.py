"""The outbox opens a pull request once, adopts one that exists, requests reviews and sets the commit status."""

from typing import Any

import pytest

from app.domain.task import State
from tests import builders
from tests.conftest import FakeClock
from tests.workshop import REPO, Workshop

LOST_ANSWERS = ["cut-after-doing", "502-after-doing"]


@pytest.mark.parametrize("fault", LOST_ANSWERS)
def test_a_lost_answer_does_not_open_a_second_pull_request(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", fault)
    workshop.finish(number)
    workshop.converge()
    assert len(workshop.pulls()) == 1
    clock.pass_(5)
    workshop.converge()
    task = workshop.task(number)
    assert (workshop.pulls(), task.state, task.pr_number) == ([task.pr_number], State.REVIEW_PENDING, task.pr_number)


def test_an_existing_pull_request_is_adopted(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.forge.faults.webhooks_off = True
    workshop.push(number)
    pull = workshop.open_pull(number, by="alice")
    workshop.finish(number, "2")
    workshop.converge()
    assert (workshop.task(number).pr_number, workshop.pulls()) == (pull, [pull])


def test_an_open_pull_request_is_found_behind_a_closed_one(workshop: Workshop) -> None:
    """The forge finds only the first pull request of a branch, in any state. Creating one answers 409 for the open one."""
    number = workshop.running()
    workshop.forge.faults.webhooks_off = True
    workshop.push(number)
    old = workshop.open_pull(number)
    workshop.say("PATCH", f"/pulls/{old}", state="closed")
    new = workshop.open_pull(number)
    workshop.finish(number, "2")
    workshop.converge()
    assert (workshop.task(number).pr_number, sorted(workshop.pulls())) == (new, [old, new])


@pytest.mark.parametrize("status", [403, 422])
def test_a_refused_pull_request_fails_the_task_and_says_why(workshop: Workshop, status: int) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", status)
    workshop.finish(number)
    workshop.converge()
    task, shown = workshop.task(number), workshop.shown(number)
    assert (task.state, task.reason) == (State.FAILED, "pull_refused")
    [entry] = [entry for entry in shown["outbox"] if entry["kind"] == "open_pull"]
    assert entry["given_up"] and str(status) in entry["error"]
    assert any("pull refused" in comment and str(status) in comment for comment in workshop.comments(number))
    assert "status:blocked" in workshop.labels(number)


def test_a_branch_that_never_appears_fails_the_task(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.finish(number, None, pushed=True, head="a" * 40)
    workshop.converge_for_hours(clock.pass_)
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.FAILED, "pull_refused")


def test_the_newest_commit_has_a_status_with_a_link(workshop: Workshop) -> None:
    number, pull = workshop.in_review()

    def status() -> dict[str, Any]:
        found = workshop.people["alice"].get(f"{REPO}/commits/{workshop.task(number).head}/status").json()
        [ours] = found["statuses"]
        return dict(ours)

    assert (status()["context"], status()["status"]) == ("agent-fleet/task", "success")
    assert status()["target_url"].endswith(f"/tasks/acme%2Fwidgets%23{number}")
    workshop.review(pull)
    workshop.converge()
    assert status()["status"] == "pending"


def test_the_reviewers_of_the_rule_are_requested(workshop: Workshop) -> None:
    rule = builders.declared()["repositories"][0] | {"reviewers": ["reviewer"]}
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[rule])
    _, pull = workshop.in_review()
    asked = workshop.people["alice"].get(f"{REPO}/pulls/{pull}").json()["requested_reviewers"]
    assert [one["login"] for one in asked] == ["reviewer"]


def test_work_without_reported_validation_is_marked_as_work_in_progress(workshop: Workshop) -> None:
    rule = builders.declared()["repositories"][0] | {"validation": ["make test"]}
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[rule])
    number, pull = workshop.in_review()

    def title() -> str:
        return str(workshop.people["alice"].get(f"{REPO}/pulls/{pull}").json()["title"])

    assert title() == "WIP: Fix the total"
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "2", validation=[{"command": "make test", "exit_code": 0}])
    workshop.converge()
    assert title() == "Fix the total"

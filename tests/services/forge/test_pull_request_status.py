"""Approvals, checks and conflicts of a pull request: shown in the status comment, resolved by a round."""

from app.domain.task import State
from app.services.dispatch import prompts
from app.services.forge import review_rounds
from app.store import task_details
from tests.conftest import FakeClock
from tests.workshop import WIDGETS, Workshop


def test_an_approval_and_green_checks_are_shown_and_start_nothing(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    head = workshop.task(number).head or ""
    workshop.say("POST", f"/pulls/{pull}/reviews", "reviewer", event="APPROVED", body="Fine.")
    workshop.forge.run_ci(WIDGETS, head, "success")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).run) == (State.REVIEW_PENDING, 1)
    [status] = workshop.comments(number)
    assert "Approved by reviewer; checks passed." in status


def test_failed_checks_are_shown_once_and_passed_checks_after_them(workshop: Workshop) -> None:
    number, _ = workshop.in_review()
    for state, words in (("failure", "Checks failed."), ("success", "Checks passed.")):
        workshop.forge.run_ci(WIDGETS, workshop.task(number).head or "", state)
        workshop.converge()
        workshop.reconcile()
        assert words in workshop.comments(number)[0]
    assert workshop.facts(number).count("pull_news") == 2


def test_reconcile_finds_checks_that_no_delivery_reports(workshop: Workshop) -> None:
    number, _ = workshop.in_review()
    workshop.forge.faults.webhooks_off = True
    workshop.forge.run_ci(WIDGETS, workshop.task(number).head or "", "failure")
    workshop.reconcile()
    assert "Checks failed." in workshop.comments(number)[0]


def conflicting(workshop: Workshop) -> int:
    """An issue whose pull request conflicts with its base."""
    number, _ = workshop.in_review()
    workshop.forge.commit(WIDGETS, "alice", "main", {"total.py": "other"}, "Meanwhile")
    return number


def test_a_conflict_with_the_base_gets_a_round_that_resolves_it(workshop: Workshop) -> None:
    number = conflicting(workshop)
    workshop.reconcile()
    workshop.reconcile()
    task = workshop.task(number)
    assert (task.state, task.run, task.review_count) == (State.RUNNING, 2, 0)
    with workshop.fleet.engine.begin() as conn:
        session, text = prompts.prompt_of(conn, task, task_details.get(conn, task.id))
    assert session == "session-1" and "Merge `origin/main` into this branch" in text


def test_a_conflict_that_the_forge_takes_back_starts_nothing(workshop: Workshop, clock: FakeClock) -> None:
    number = conflicting(workshop)
    workshop.set_review_quiet()
    workshop.reconcile()
    workshop.push(number, "other")
    clock.pass_(20)
    workshop.converge()
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).run) == (State.REVIEW_PENDING, 1)


def test_conflicts_are_left_to_a_person_after_three_rounds(workshop: Workshop) -> None:
    number = conflicting(workshop)
    for content in "abcd":
        workshop.reconcile()
        if workshop.task(number).state is State.RUNNING:
            workshop.start(number)
            workshop.finish(number, content)
            workshop.converge()
    assert workshop.task(number).state is State.REVIEW_PENDING
    assert workshop.facts(number).count("conflicted") == review_rounds.MOST_CONFLICTS
    assert "conflicts with its base branch, and a person must resolve" in workshop.comments(number)[0]

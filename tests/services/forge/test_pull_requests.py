"""Pull requests on the forge: opened, merged, closed, reopened, by us and by others; in any order of deliveries."""

from datetime import datetime

import pytest

from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State
from app.services.forge.deliveries import apply_deliveries
from app.services.runs import report
from app.store import tasks
from tests.conftest import FakeClock
from tests.workshop import REPO, WIDGETS, Workshop


def test_a_run_that_pushed_opens_a_pull_request_that_waits_for_review(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    task = workshop.task(number)
    assert (task.state, task.pr_number, workshop.pulls()) == (State.REVIEW_PENDING, pull, [pull])
    assert "status:review" in workshop.labels(number)


def test_the_merge_completes_the_task(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.converge()
    assert workshop.task(number).state is State.COMPLETED
    assert "status:done" in workshop.labels(number)


@pytest.mark.parametrize("fact", ["created", "assigned", "running"])
def test_a_merge_completes_a_task_in_every_live_state(workshop: Workshop, fact: str) -> None:
    number = workshop.open_issue(labels=("agent:cobol" if fact == "created" else "agent:python",))
    workshop.converge()
    if fact == "running":
        workshop.start(number)
    assert workshop.task(number).state == fact
    workshop.push(number)
    workshop.merge(workshop.open_pull(number, by="alice"))
    workshop.converge()
    assert workshop.task(number).state is State.COMPLETED


def test_the_merge_of_its_branch_completes_a_failed_task(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.finish(number, None)
    workshop.push(number)
    pull = workshop.open_pull(number)
    workshop.converge()
    assert workshop.task(number).state is State.FAILED
    workshop.merge(pull)
    workshop.converge()
    assert workshop.task(number).state is State.COMPLETED


def test_a_merge_that_arrives_before_the_opening_completes_the_task(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.push(number)
    workshop.merge(workshop.open_pull(number))
    workshop.forge.wait_for_deliveries()
    for delivery in reversed(workshop.forge.deliveries[workshop.carried :]):
        assert workshop.bring(delivery) == 202
        apply_deliveries(workshop.fleet)
    workshop.converge()
    assert workshop.task(number).state is State.COMPLETED
    assert workshop.task(number).pr_number is not None


def test_a_merge_stops_a_running_round(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    workshop.merge(pull)
    workshop.converge()
    assert workshop.task(number).state is State.COMPLETED
    assert "stop" in {entry["kind"] for entry in workshop.shown(number)["outbox"]}


def test_reconcile_finds_the_merge_of_a_task_that_no_run_began(workshop: Workshop) -> None:
    number = workshop.open_issue(labels=("agent:cobol",))
    workshop.reconcile()
    workshop.forge.faults.webhooks_off = True
    workshop.push(number)
    workshop.merge(workshop.open_pull(number, by="alice"))
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).run) == (State.COMPLETED, 0)


def test_closing_the_pull_request_cancels_the_task_and_reopening_brings_it_back(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.say("PATCH", f"/pulls/{pull}", state="closed")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.CANCELLED, "pull_closed")
    workshop.say("PATCH", f"/pulls/{pull}", state="open")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.REVIEW_PENDING, None)


def test_a_pull_request_closed_twice_cancels_the_task(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    for state in ("closed", "open"):
        workshop.say("PATCH", f"/pulls/{pull}", state=state)
        workshop.converge()
    with workshop.forge.store.lock:
        closed = workshop.forge.repository("acme/widgets").issues[pull]
    workshop.say("PATCH", f"/pulls/{pull}", state="closed")
    closed.closed = closed.closed and closed.closed.replace(year=2031)
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED


def test_reopening_the_pull_request_of_a_cancelled_task_changes_nothing(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    with workshop.fleet.engine.begin() as conn:
        tasks.record(conn, workshop.task(number).id, Fact(FactKind.CANCEL), workshop.fleet.clock())
    workshop.say("PATCH", f"/pulls/{pull}", state="closed")
    workshop.say("PATCH", f"/pulls/{pull}", state="open")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.CANCELLED, "cancelled")


def test_a_retry_opens_a_new_pull_request_after_the_old_one_was_closed(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.say("PATCH", f"/pulls/{pull}", state="closed")
    workshop.converge()
    with workshop.fleet.engine.begin() as conn:
        tasks.record(conn, workshop.task(number).id, Fact(FactKind.RETRY), workshop.fleet.clock())
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "2")
    workshop.converge()
    task = workshop.task(number)
    assert (task.state, len(workshop.pulls())) == (State.REVIEW_PENDING, 2)
    assert task.pr_number == max(workshop.pulls())


def test_a_pull_request_closed_before_a_retry_does_not_cancel_the_task_again(workshop: Workshop) -> None:
    number, _ = workshop.in_review()
    task = workshop.task(number)
    with workshop.fleet.engine.begin() as conn:
        tasks.record(conn, task.id, Fact(FactKind.CANCEL), workshop.fleet.clock())
    workshop.say("PATCH", f"/pulls/{task.pr_number}", state="closed")
    workshop.converge()
    with workshop.fleet.engine.begin() as conn:
        tasks.record(conn, task.id, Fact(FactKind.RETRY), workshop.fleet.clock())
    workshop.reconcile()
    assert workshop.task(number).live


def test_deleting_the_branch_closes_the_pull_request_and_cancels_the_task(workshop: Workshop) -> None:
    number, _ = workshop.in_review()
    workshop.say("DELETE", f"/branches/{workshop.task(number).branch}")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.CANCELLED, "pull_closed")


def test_deliveries_about_our_own_writes_change_nothing(workshop: Workshop) -> None:
    """Each of our comments, labels and pull requests causes a delivery; `converge` ends only after the last one."""
    number, _ = workshop.in_review()
    ours = [one for one in workshop.forge.deliveries if one.body["sender"]["login"] == "fleet"]
    assert {one.event_type for one in ours} >= {"issue_label", "issue_comment", "pull_request"}
    before = workshop.shown(number)
    for delivery in ours:
        workshop.client.post(
            "/webhooks/forgejo",
            data=delivery.raw,
            headers=delivery.headers | {"X-Forgejo-Delivery": f"again {delivery.uuid}"},
        )
    workshop.converge()
    assert workshop.shown(number) == before


def test_a_push_to_the_branch_counts_as_activity(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    before = workshop.shown(number)["last_activity_at"]
    clock.pass_(600)
    workshop.push(number)
    workshop.converge()
    assert workshop.shown(number)["last_activity_at"] > before


@pytest.mark.parametrize("told", [True, False], ids=["by a delivery", "by the round"])
def test_a_push_to_the_pull_request_counts_as_activity_and_gets_our_status(
    workshop: Workshop, clock: FakeClock, told: bool
) -> None:
    number, pull = workshop.in_review()
    clock.pass_(600)
    before, head = clock(), workshop.push(number, "by hand")
    if told:
        workshop.converge()
    workshop.reconcile()
    assert workshop.task(number).head == head
    assert datetime.fromisoformat(workshop.shown(number)["last_activity_at"]) >= before
    found = workshop.people["alice"].get(f"{REPO}/commits/{head}/status").json()["statuses"]
    assert [(one["context"], one["description"]) for one in found] == [
        ("agent-fleet/task", f"Pull request #{pull} waits for review.")
    ]


def test_a_draft_does_not_count_as_opened_while_its_run_goes_on(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.push(number)
    pull = workshop.say("POST", "/pulls", head=workshop.task(number).branch, base="main", title="WIP: by hand")[
        "number"
    ]
    workshop.converge()
    assert workshop.task(number).state is State.RUNNING
    workshop.say("PATCH", f"/pulls/{pull}", title="By hand")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.RUNNING, pull)
    workshop.finish(number, "2")
    workshop.converge()
    assert (workshop.task(number).state, workshop.pulls()) == (State.REVIEW_PENDING, [pull])


def test_a_closed_issue_cancels_the_task_whatever_its_pull_request_says(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.review(pull, "Not like this.")
    workshop.close(number)
    workshop.reconcile()
    assert (workshop.task(number).state, "changes_requested" in workshop.facts(number)) == (State.CANCELLED, False)


def test_no_title_closes_another_issue(workshop: Workshop) -> None:
    other = workshop.open_issue("Another", labels=())
    _, pull = workshop.in_review(title=f"Total is off, closes #{other} and {WIDGETS}#{other}")
    assert workshop.say("GET", f"/pulls/{pull}")["title"] == f"Total is off, closes {other} and {WIDGETS}{other}"
    workshop.merge(pull)
    workshop.converge()
    assert workshop.say("GET", f"/issues/{other}")["state"] == "open"


def test_the_status_shows_the_reason_of_the_newest_run(workshop: Workshop) -> None:
    number = workshop.running()
    report.failed(workshop.fleet, workshop.run(number), "timed_out", "the disk was full", transient=False)
    workshop.converge()
    assert "the disk was full" in workshop.comments(number)[0]
    workshop.comment(number, "/retry")
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, None, "I did nothing.")
    workshop.converge()
    [status] = (said for said in workshop.comments(number) if "kind=status" in said)
    assert "Failed: no delivery." in status and "the disk was full" not in status


def test_nothing_to_change_fails_the_task_with_the_agents_reason(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.finish(number, None, "I looked.\nNothing to change: the total is right.")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.FAILED, "nothing_to_change")
    assert "Failed: nothing to change." in workshop.comments(number)[0]
    assert "the total is right." in workshop.comments(number)[0]


def test_no_pull_request_is_opened_from_a_branch_without_the_runs_commit(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.push(number, "something else")
    workshop.finish(number, None, pushed=True, head="a" * 40)
    for _ in range(16):
        workshop.converge()
        clock.pass_(301)
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.FAILED, "pull_refused")
    assert workshop.pulls() == [] and any("without aaaaaaaaaa" in said for said in workshop.comments(number))


def test_commits_on_top_of_the_runs_commit_are_offered_too(workshop: Workshop) -> None:
    number = workshop.running()
    head = workshop.push(number)
    on_top = workshop.push(number, "2")
    workshop.finish(number, None, pushed=True, head=head)
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).head) == (State.REVIEW_PENDING, on_top)

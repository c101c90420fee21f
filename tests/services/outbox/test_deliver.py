"""Outbox entries for the forge: delivered once after any number of tries, adopted where they exist, given up visibly."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app.domain import receipt, receipt_signature
from app.domain.errors import Refused
from app.domain.host import Fitness, Probe
from app.domain.lifecycle import Fact, FactKind, OutboxKind
from app.domain.task import State
from app.services.forge.deliveries import apply_deliveries
from app.services.outbox import deliver
from app.store import hosts, outbox, tasks, views
from tests import builders
from tests.conftest import FakeClock
from tests.workshop import REPO, WIDGETS, Workshop

DONE_UNHEARD = ["cut-after-doing", "502-after-doing"]


def pay_for_hours(workshop: Workshop, clock: FakeClock) -> None:
    """Let every back-off pass."""
    for _ in range(16):
        workshop.converge()
        clock.pass_(301)


@pytest.mark.parametrize("fault", DONE_UNHEARD)
def test_a_pull_request_whose_answer_was_lost_is_one_pull_request(
    workshop: Workshop, clock: FakeClock, fault: str
) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", fault)
    workshop.finish(number)
    workshop.converge()
    assert len(workshop.pulls()) == 1
    clock.pass_(5)
    workshop.converge()
    task = workshop.task(number)
    assert (workshop.pulls(), task.state, task.pr_number) == ([task.pr_number], State.REVIEW_PENDING, task.pr_number)


def test_a_start_whose_asker_died_is_no_outbox_entry_once_the_run_is_seen(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.placed()
    with workshop.fleet.engine.begin() as conn:
        (taken,) = outbox.take(conn, [OutboxKind.START], clock())  # its process was killed
    assert [one["kind"] for one in workshop.shown(number)["outbox"]] == ["start"]
    workshop.start(number)
    workshop.converge()
    assert workshop.shown(number)["outbox"] == []
    with workshop.fleet.engine.begin() as conn:
        outbox.done(conn, taken.id, clock())  # it was alive after all


@pytest.mark.parametrize("fault", DONE_UNHEARD)
def test_a_comment_whose_answer_was_lost_is_one_comment(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number = workshop.placed()
    workshop.forge.faults.next("POST", r"/issues/\d+/comments$", fault)
    workshop.start(number)
    workshop.converge()
    clock.pass_(5)
    workshop.converge()
    assert len(workshop.comments(number)) == 1
    assert workshop.shown(number)["outbox"] == [] or {entry["kind"] for entry in workshop.shown(number)["outbox"]} == {
        "start"
    }


def test_the_status_comment_is_one_and_says_what_is_so_now(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    [comment] = workshop.comments(number)
    assert f"Pull request #{pull} waits for review." in comment
    workshop.merge(pull)
    workshop.converge()
    status, receipt = workshop.comments(number)
    assert "Done." in status and "receipt" in receipt


def test_a_deleted_comment_is_made_anew(workshop: Workshop) -> None:
    number = workshop.running()
    [comment] = workshop.people["alice"].get(f"{REPO}/issues/{number}/comments").json()
    workshop.say("DELETE", f"/issues/comments/{comment['id']}")
    workshop.finish(number)
    workshop.converge()
    assert len(workshop.comments(number)) == 1


@pytest.mark.parametrize("fault", DONE_UNHEARD)
def test_a_deleted_comment_made_anew_unheard_is_still_one(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number = workshop.running()
    [comment] = workshop.people["alice"].get(f"{REPO}/issues/{number}/comments").json()
    workshop.say("DELETE", f"/issues/comments/{comment['id']}")
    workshop.forge.faults.next("POST", r"/issues/\d+/comments$", fault)
    workshop.finish(number)
    workshop.converge()
    clock.pass_(10)
    workshop.converge()
    assert len(workshop.comments(number)) == 1


def test_somebody_elses_copy_of_our_marker_is_left_alone(workshop: Workshop) -> None:
    number = workshop.placed()
    marker = f"<!-- fleet:task={WIDGETS}#{number} kind=status -->"
    workshop.say("POST", f"/issues/{number}/comments", "mallory", body=f"Mine.\n\n{marker}")
    workshop.start(number)
    workshop.converge()
    assert workshop.comments(number, by="mallory") == [f"Mine.\n\n{marker}"]
    assert len(workshop.comments(number)) == 1


def test_labels_are_made_once_and_follow_the_state(workshop: Workshop) -> None:
    number, pull = workshop.in_review(labels=("agent:python", "bug"))
    other = workshop.running()
    assert workshop.labels(number) == {"agent:python", "bug", "status:review"}
    assert "status:doing" in workshop.labels(other)
    workshop.merge(pull)
    workshop.converge()
    assert workshop.labels(number) == {"agent:python", "bug", "status:done"}
    names = [label.name for label in workshop.forge.repository(WIDGETS).labels]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("fault", DONE_UNHEARD)
def test_a_label_whose_making_was_not_heard_of_is_one_label(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    workshop.forge.faults.next("POST", r"/widgets/labels$", fault)
    number = workshop.placed()
    clock.pass_(5)
    workshop.converge()
    names = [label.name for label in workshop.forge.repository(WIDGETS).labels]
    assert names.count("status:doing") == 1 and "status:doing" in workshop.labels(number)


def test_a_cancelled_task_bears_no_label_of_ours(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.close(number)
    workshop.converge()
    assert workshop.labels(number) == {"agent:python"}


def test_a_pull_request_that_stands_already_is_adopted(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.forge.faults.webhooks_off = True
    workshop.push(number)
    pull = workshop.open_pull(number, by="alice")
    workshop.finish(number, "2")
    workshop.converge()
    assert (workshop.task(number).pr_number, workshop.pulls()) == (pull, [pull])


def test_a_409_leads_to_the_open_one_behind_a_closed_one(workshop: Workshop) -> None:
    """By its branches the forge shows the first pull request in any state; the open one comes to light by 409."""
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
def test_a_pull_request_that_is_refused_fails_the_task_where_all_can_see_it(workshop: Workshop, status: int) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", status)
    workshop.finish(number)
    workshop.converge()
    task, shown = workshop.task(number), workshop.shown(number)
    assert (task.state, task.reason) == (State.FAILED, "pull_refused")
    [owed] = [entry for entry in shown["outbox"] if entry["kind"] == "open_pull"]
    assert owed["given_up"] and str(status) in owed["error"]
    assert any("pull refused" in comment and str(status) in comment for comment in workshop.comments(number))
    assert "status:blocked" in workshop.labels(number)


def test_a_comment_that_is_refused_is_given_up_and_the_work_goes_on(workshop: Workshop) -> None:
    workshop.forge.faults.next("POST", r"/comments$", 403)
    number = workshop.placed()
    workshop.start(number)
    assert any(entry["given_up"] for entry in workshop.shown(number)["outbox"] if entry["kind"] == "comment")
    workshop.finish(number)
    workshop.converge()
    assert workshop.task(number).state is State.REVIEW_PENDING
    assert len(workshop.comments(number)) == 1


def test_what_is_unavailable_is_tried_again_after_longer_and_longer_waits(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", 503, times=3)
    workshop.finish(number)
    waits = []
    for _ in range(3):
        deliver.deliver_due(workshop.fleet)
        assert deliver.deliver_due(workshop.fleet) == 0
        with workshop.fleet.engine.begin() as conn:
            owed = next(entry for entry in outbox.of_task(conn, workshop.task(number).id) if entry.kind == "open_pull")
        waits.append((owed.due_at - clock()).total_seconds())
        clock.now = owed.due_at
    assert waits == sorted(set(waits)) and len(waits) == 3
    workshop.converge()
    assert workshop.task(number).state is State.REVIEW_PENDING


def test_the_forge_says_when_a_outbox_entry_may_be_tried_again(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", 429, retry_after=77)
    workshop.finish(number)
    workshop.converge()
    clock.pass_(76)
    workshop.converge()
    assert workshop.pulls() == []
    clock.pass_(1)
    workshop.converge()
    assert len(workshop.pulls()) == 1


def test_a_branch_that_never_comes_is_given_up_in_the_end(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.finish(number, None, pushed=True, head="a" * 40)
    pay_for_hours(workshop, clock)
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.FAILED, "pull_refused")


@pytest.mark.parametrize("status", [200, 302])
def test_an_answer_that_is_not_the_forges_own_keeps_no_outbox_entry_of_others_waiting(
    workshop: Workshop, clock: FakeClock, status: int
) -> None:
    """A proxy's page instead of the forge: `{"message": ...}` with 200, or a redirect to a login."""
    first, second = workshop.placed(), workshop.placed()
    workshop.start(first)
    workshop.start(second)
    workshop.forge.faults.next("GET", rf"/issues/{first}/comments$", status)
    deliver.deliver_due(workshop.fleet)
    assert len(workshop.comments(second)) == 1


def test_the_receipt_is_written_only_when_the_forge_says_merged(workshop: Workshop, clock: FakeClock) -> None:
    number, pull = workshop.in_review()
    with workshop.fleet.engine.begin() as conn:
        claimed = Fact(FactKind.PULL_MERGED, {"number": pull, "merge_commit": "f" * 40})
        tasks.record(conn, workshop.task(number).id, claimed, clock())
    workshop.converge()
    assert receipt_of(workshop, number) is None
    workshop.merge(pull)
    clock.pass_(10)
    workshop.converge()
    proof = receipt_of(workshop, number)
    merged = workshop.people["alice"].get(f"{REPO}/pulls/{pull}").json()
    assert proof and proof["pull_request"]["merge_commit"] == merged["merge_commit_sha"] != "f" * 40


def test_the_receipt_names_runs_commits_and_what_they_cost(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "2")
    workshop.converge()
    workshop.merge(pull)
    workshop.converge()
    proof = receipt_of(workshop, number) or {}
    assert (len(proof["runs"]), len(proof["commits"]), proof["reviews"]) == (2, 2, 1)
    assert proof["usage"] == {"input_tokens": 20, "cached_tokens": 0, "output_tokens": 10, "cost_usd": 0.5}
    assert proof["pull_request"]["merged_by"] == "alice"
    assert sum("receipt" in comment for comment in workshop.comments(number)) == 1


@pytest.mark.parametrize("fault", DONE_UNHEARD)
def test_a_receipt_whose_answer_was_lost_is_one_receipt(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.forge.faults.next("POST", r"/comments$", fault)
    workshop.converge()
    clock.pass_(10)
    workshop.converge()
    assert sum("kind=receipt" in comment for comment in workshop.comments(number)) == 1


def test_two_who_settle_at_once_pay_each_outbox_entry_once(workshop: Workshop) -> None:
    numbers = [workshop.running() for _ in range(2)]
    for number in numbers:
        workshop.finish(number)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: deliver.deliver_due(workshop.fleet), range(8)))
    workshop.converge()
    assert len(workshop.pulls()) == 2
    assert all(len(workshop.comments(number)) == 1 for number in numbers)


def test_a_outbox_entry_of_a_task_that_went_on_is_paid_with_nothing(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.finish(number)
    workshop.close(number)
    workshop.carry()
    apply_deliveries(workshop.fleet)
    workshop.converge()
    assert (workshop.task(number).state, workshop.pulls()) == (State.CANCELLED, [])


def receipt_of(workshop: Workshop, number: int) -> dict[str, Any] | None:
    with workshop.fleet.engine.begin() as conn:
        return views.receipt_of(conn, f"{WIDGETS}#{number}")


@pytest.mark.parametrize("status", [503, 401])
def test_an_outage_of_hours_fails_no_finished_task(workshop: Workshop, clock: FakeClock, status: int) -> None:
    number = workshop.running()
    workshop.forge.faults.next("POST", r"/pulls$", status, times=100_000)
    workshop.finish(number)
    pay_for_hours(workshop, clock)
    assert workshop.task(number).state is State.RUNNING
    workshop.forge.faults.clear()
    pay_for_hours(workshop, clock)
    assert workshop.task(number).state is State.REVIEW_PENDING


def test_the_newest_commit_shows_how_the_task_stands_with_a_link(workshop: Workshop) -> None:
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


def test_labels_bear_the_names_that_the_forge_was_given(workshop: Workshop) -> None:
    forge = builders.declared(workshop.forge.url)["forges"]["main"] | {"labels": {"doing": "agent/working", "todo": ""}}
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forges={"main": forge})
    number = workshop.running()
    assert workshop.labels(number) == {"agent:python", "agent/working"}
    assert [
        label.exclusive for label in workshop.forge.repository(WIDGETS).labels if label.name == "agent/working"
    ] == [True]


def test_a_label_that_does_not_come_to_stand_there_is_no_success(workshop: Workshop) -> None:
    """The forge drops a label it does not know without a word."""
    number = workshop.open_issue()
    forge = workshop.fleet.forges("main")
    label = workshop.forge.add_label(WIDGETS, "status:doing")
    workshop.forge.faults.next("POST", rf"/issues/{number}/labels$", "cut")
    with pytest.raises(Refused):
        forge.set_labels(WIDGETS, number, {"status:doing": ""}, frozenset())
    forge.set_labels(WIDGETS, number, {"status:doing": ""}, frozenset())
    assert label.name in workshop.labels(number)


def test_reviewers_of_the_rule_are_asked(workshop: Workshop) -> None:
    rule = builders.declared()["repositories"][0] | {"reviewers": ["reviewer"]}
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[rule])
    _, pull = workshop.in_review()
    asked = workshop.people["alice"].get(f"{REPO}/pulls/{pull}").json()["requested_reviewers"]
    assert [one["login"] for one in asked] == ["reviewer"]


def test_work_whose_validation_nobody_reported_is_marked_until_it_is(workshop: Workshop) -> None:
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


def test_the_receipt_is_signed_and_proves_the_history(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.converge()
    proof = receipt_of(workshop, number) or {}
    events = workshop.shown(number)["events"]
    assert receipt_signature.verify(receipt.text(proof).encode(), proof["signature"]["key"]) == proof
    assert proof["history"] == {"events": len(events), "head": receipt.chain(proof["task_id"], events)}
    posted = next(text for text in workshop.comments(number) if "kind=receipt" in text)
    inside = posted.split("```json\n")[1].split("\n```")[0]
    assert receipt_signature.verify(inside.encode()) == proof


def test_a_receipt_has_the_shape_that_is_promised(workshop: Workshop, clock: FakeClock) -> None:
    """By the schema in the docs, in which every key stands; with the version that the last probe of the host found."""
    seen = Probe(clis={"coder": "coder 1.2.3"})
    with workshop.fleet.engine.begin() as conn:
        hosts.save_probe(conn, "localhost", clock(), Fitness.FIT, None, seen)
    number, pull = workshop.in_review()
    with workshop.fleet.engine.begin() as conn:
        hosts.save_probe(conn, "localhost", clock(), Fitness.FIT, None, Probe(clis={"coder": "coder 2"}))
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "2")
    workshop.converge()
    workshop.merge(pull)
    workshop.converge()
    schema = json.loads((Path(__file__).parents[3] / "docs" / "receipt.schema.json").read_text())
    proof = receipt_of(workshop, number) or {}
    jsonschema_rs.validator_for(schema).validate(proof)
    assert [run["cli_version"] for run in proof["runs"]] == ["coder 1.2.3", "coder 2"]
    assert set(proof) == set(schema["properties"]) == set(schema["required"])
    assert set(proof["runs"][0]) == set(schema["properties"]["runs"]["items"]["properties"])
    assert set(proof["pull_request"]) == set(schema["properties"]["pull_request"]["properties"])
    for wrong in ({"version": 1}, {"runs": [{"cli_version": 3}]}, {"prompt_sha256": "no hash"}):
        assert not jsonschema_rs.validator_for(schema).is_valid(proof | wrong)

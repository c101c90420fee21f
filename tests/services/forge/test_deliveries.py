"""Deliveries of one subject are applied together; none is lost, none delays another."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.domain.task import State
from app.services.forge.deliveries import apply_deliveries, set_subjects
from app.store import deliveries, forge_cursors
from tests.conftest import FakeClock
from tests.workshop import WIDGETS, Workshop, signed


def lookups(workshop: Workshop, at: str) -> int:
    """How often the forge was asked for this path since the last call of this function."""
    count = sum(call.startswith("GET ") and call.endswith(at) for call in workshop.forge.calls)
    workshop.forge.calls.clear()
    return count


def again(workshop: Workshop, times: int) -> None:
    """Send all deliveries so far again, `times` times, under new ids."""
    for number, delivery in enumerate(list(workshop.forge.deliveries) * times):
        headers = delivery.headers | {"X-Forgejo-Delivery": f"again-{number}"}
        assert workshop.client.post("/webhooks/forgejo", data=delivery.raw, headers=headers).status_code == 202


def test_deliveries_of_one_issue_need_one_lookup(workshop: Workshop) -> None:
    numbers = [workshop.open_issue() for _ in range(2)]
    workshop.carry()
    again(workshop, 10)
    workshop.forge.calls.clear()
    apply_deliveries(workshop.fleet)
    assert [task.issue_number for task in workshop.tasks()] == numbers
    assert {row.result for row in workshop.inbox()} == {"applied"} and len(workshop.inbox()) == 44
    assert sum(call.endswith(f"/issues/{numbers[0]}") for call in workshop.forge.calls) == 1


def test_deliveries_of_one_pull_request_need_one_lookup(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.say("POST", f"/pulls/{pull}/reviews", "reviewer", event="COMMENT", body="Fine.")
    workshop.push(number, "2")
    workshop.carry()
    again(workshop, 2)
    lookups(workshop, "")
    apply_deliveries(workshop.fleet)
    assert lookups(workshop, f"/pulls/{pull}") == 1
    assert not [row for row in workshop.inbox() if row.applied_at is None]


def test_the_oldest_subject_is_applied_first_with_its_new_deliveries(workshop: Workshop, clock: FakeClock) -> None:
    first, second = workshop.open_issue(), workshop.open_issue()
    workshop.carry()
    workshop.forge.faults.next("GET", rf"/issues/({first}|{second})$", 503, times=2)
    apply_deliveries(workshop.fleet)
    clock.pass_(1)
    assert apply_deliveries(workshop.fleet) == 0, "both wait"
    workshop.label(second, "agent:python", "bug")
    workshop.carry()
    apply_deliveries(workshop.fleet)
    assert [task.issue_number for task in workshop.tasks()] == [second]
    clock.pass_(5)
    apply_deliveries(workshop.fleet)
    assert [task.issue_number for task in workshop.tasks()] == [second, first]


def test_a_held_subject_is_not_taken_by_another_worker(workshop: Workshop, clock: FakeClock) -> None:
    workshop.open_issue()
    workshop.carry()
    set_subjects(workshop.fleet)
    with workshop.fleet.engine.begin() as conn:
        assert len(deliveries.take(conn, clock())) == 2
    again(workshop, 1)
    set_subjects(workshop.fleet)
    with workshop.fleet.engine.begin() as conn:
        assert deliveries.take(conn, clock()) == []
    clock.pass_(31)  # the process that took it has died
    with workshop.fleet.engine.begin() as conn:
        assert len(deliveries.take(conn, clock())) == 4


def test_two_workers_at_once_apply_everything_once_in_effect(workshop: Workshop) -> None:
    numbers = [workshop.open_issue() for _ in range(6)]
    workshop.carry()
    again(workshop, 3)
    start = threading.Barrier(2)

    def work(_: int) -> None:
        start.wait()
        while apply_deliveries(workshop.fleet):
            pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    while apply_deliveries(workshop.fleet):
        pass
    assert sorted(task.issue_number or 0 for task in workshop.tasks()) == numbers
    assert all(row.result == "applied" for row in workshop.inbox())


def test_a_delivery_that_causes_an_error_is_shown_and_delays_no_other(workshop: Workshop) -> None:
    """The error here is a command that the database refuses to store."""
    number = workshop.running()
    workshop.comment(number, "/status")
    workshop.label(number, "agent:python", "bug")
    workshop.carry()
    with workshop.fleet.engine.begin() as conn:
        conn.execute(sa.text("ALTER TABLE comment_commands ADD CONSTRAINT never CHECK (false) NOT VALID"))
    try:
        apply_deliveries(workshop.fleet)
    finally:
        with workshop.fleet.engine.begin() as conn:
            conn.execute(sa.text("ALTER TABLE comment_commands DROP CONSTRAINT never"))
    stuck = [row for row in workshop.inbox() if row.applied_at is None]
    assert [row.event for row in stuck] == ["issue_comment"] and "an error in agent-fleet" in str(stuck[0].why)


def test_commands_are_executed_in_the_order_of_their_comments(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    for where, text in ((number, "/cancel"), (pull, "/retry"), (number, "/cancel")):
        workshop.comment(where, text)
    workshop.forge.wait_for_deliveries()
    said = [one for one in workshop.forge.deliveries[workshop.carried :] if "comment" in one.event_type]
    for delivery in reversed(said):
        workshop.bring(delivery)
    workshop.work()
    assert workshop.task(number).state is State.CANCELLED
    assert [fact for fact in workshop.facts(number) if fact in ("cancel", "retry")] == ["cancel", "retry", "cancel"]


@pytest.mark.parametrize("branch", ["task/" + "ü" * 3000, "a b", "x"])
def test_a_delivery_about_a_branch_of_any_name_is_applied(workshop: Workshop, branch: str) -> None:
    raw = b'{"ref": "refs/heads/%s", "before": "1", "after": "2", "repository": {"id": 1, "full_name": "acme/widgets"}}'
    raw = raw % branch.encode()
    assert workshop.client.post("/webhooks/forgejo", data=raw, headers=signed(raw, "push")).status_code == 202
    apply_deliveries(workshop.fleet)
    assert [row.result for row in workshop.inbox()] == ["ignored"]


def test_a_delivery_about_a_branch_waits_for_the_branchs_task(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.open_issue()
    workshop.forge.wait_for_deliveries()
    branch = f"task/{number}-fix-the-total"
    workshop.say("POST", "/branches", new_branch_name=branch)
    workshop.forge.commit(WIDGETS, "alice", branch, {"total.py": "1"}, "Write")
    pull = int(workshop.say("POST", "/pulls", "reviewer", head=branch, base="main", title="By hand")["number"])
    workshop.merge(pull)
    workshop.forge.wait_for_deliveries()
    made = next(at for at, sent in enumerate(workshop.forge.deliveries) if sent.event in ("create", "push"))
    for delivery in workshop.forge.deliveries[made:]:
        assert workshop.bring(delivery) == 202
    apply_deliveries(workshop.fleet)
    waits = {str(row.why) for row in workshop.inbox() if row.applied_at is None}
    assert waits and all(why.startswith("no task works on") and why.endswith("yet") for why in waits)
    for delivery in workshop.forge.deliveries[:made]:
        assert workshop.bring(delivery) == 202
    workshop.work()
    clock.pass_(201)
    workshop.work()
    assert workshop.task(number).state is State.COMPLETED
    assert [row for row in workshop.inbox() if row.applied_at is None] == []


def test_a_delivery_about_a_branch_without_a_task_is_ignored_in_the_end(workshop: Workshop, clock: FakeClock) -> None:
    workshop.forge.commit(WIDGETS, "alice", "task/99-of-another-user", {"total.py": "1"}, "Write")
    workshop.carry()
    for _ in range(4):
        apply_deliveries(workshop.fleet)
        clock.pass_(201)
    assert {row.result for row in workshop.inbox() if row.event == "push"} == {"ignored"}
    assert max(row.tries for row in workshop.inbox()) <= 4


def test_the_next_reconcile_syncs_what_the_forge_did_not_answer(workshop: Workshop) -> None:
    workshop.forge.faults.webhooks_off = True
    workshop.placed()
    workshop.reconcile()
    ours, now = workshop.forge.repository(WIDGETS).id, datetime.now(UTC)
    with workshop.fleet.engine.begin() as conn:  # the last reconcile was a minute ago
        forge_cursors.set_cursor(conn, "main", ours, "issues", f"1 {now - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}")
    workshop.forge.store.clock = lambda: now - timedelta(seconds=30)
    second = workshop.open_issue("Another")
    workshop.forge.faults.next("GET", rf"/issues/{second}$", 502)
    workshop.reconcile()
    assert len(workshop.tasks()) == 1
    workshop.reconcile()
    assert len(workshop.tasks()) == 2

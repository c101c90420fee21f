"""A task in review, and what people do to a task."""

from typing import Any

import pytest

from app.domain.errors import Refused
from app.domain.lifecycle import (
    FactKind,
    OutboxKind,
    decide,
)
from app.domain.task import LIVE, State
from tests.builders import a_fact
from tests.domain.transitions import LATER, SHOW_STATE, a_task_in, the


class TestReview:
    def test_changes_requested_continue_the_same_session_in_a_new_run(self) -> None:
        decision = the(a_task_in(State.REVIEW_PENDING, session="s-1"), FactKind.CHANGES_REQUESTED)
        task = decision.task
        assert (task.state, task.run, task.review_count, task.session) == (State.RUNNING, 3, 1, "s-1")
        assert set(decision.outbox) == {OutboxKind.START, *SHOW_STATE}

    def test_an_agent_hears_of_changes_in_its_next_answer(self) -> None:
        decision = the(a_task_in(State.REVIEW_PENDING, host_id=None, agent_id="agent-1"), FactKind.CHANGES_REQUESTED)
        assert (decision.task.state, decision.task.run) == (State.RUNNING, 3)
        assert OutboxKind.START not in decision.outbox

    @pytest.mark.parametrize(
        "place", [{"host_id": "host-1"}, {"host_id": None, "agent_id": "agent-1"}], ids=["host", "agent"]
    )
    def test_a_review_loop_has_an_end(self, place: dict[str, Any]) -> None:
        decision = the(a_task_in(State.REVIEW_PENDING, review_count=2, **place), FactKind.CHANGES_REQUESTED)
        assert (decision.task.state, decision.task.reason) == (State.FAILED, "review_loop_limit")
        assert OutboxKind.START not in decision.outbox and OutboxKind.ANSWER in decision.outbox

    def test_a_push_by_others_is_the_newest_commit(self) -> None:
        decision = decide(a_task_in(State.REVIEW_PENDING, head="old"), a_fact(FactKind.PULL_NEWS, head="new"), LATER)
        assert (decision.task.head, OutboxKind.STATUS in decision.outbox) == ("new", True)

    def test_a_run_that_finishes_after_its_pull_request_was_heard_of_keeps_its_session(self) -> None:
        task = the(a_task_in(State.REVIEW_PENDING), FactKind.FINISHED, session="s-1").task
        assert (task.state, task.session) == (State.REVIEW_PENDING, "s-1")

    @pytest.mark.parametrize("state", sorted(LIVE))
    def test_a_merge_completes_any_live_task_and_stops_what_still_runs(self, state: State) -> None:
        decision = decide(a_task_in(state, reason="limit"), a_fact(FactKind.PULL_MERGED, number=13), LATER)
        assert (decision.task.state, decision.task.completed_at, decision.task.reason) == (State.COMPLETED, LATER, None)
        assert set(decision.outbox) == {OutboxKind.STOP, OutboxKind.RECEIPT, *SHOW_STATE}

    @pytest.mark.parametrize("state", [State.FAILED, State.AGENT_LOST, State.CANCELLED])
    def test_what_was_given_up_here_and_merged_there_is_done(self, state: State) -> None:
        assert decide(a_task_in(state), a_fact(FactKind.PULL_MERGED, number=13), LATER).task.state is State.COMPLETED

    def test_a_merge_is_heard_once(self) -> None:
        assert decide(a_task_in(State.COMPLETED), a_fact(FactKind.PULL_MERGED), LATER).transition.quiet

    def test_a_pull_request_closed_unmerged_cancels_it(self) -> None:
        task = decide(a_task_in(State.REVIEW_PENDING, pr_number=13), a_fact(FactKind.PULL_CLOSED), LATER).task
        assert (task.state, task.reason) == (State.CANCELLED, "pull_closed")

    def test_reopening_the_pull_request_brings_it_back(self) -> None:
        cancelled = a_task_in(State.CANCELLED, pr_number=13, reason="pull_closed")
        task = decide(cancelled, a_fact(FactKind.PULL_REOPENED), LATER).task
        assert (task.state, task.pr_number, task.completed_at, task.reason) == (State.REVIEW_PENDING, 13, None, None)


class TestPeople:
    @pytest.mark.parametrize("kind", [FactKind.ISSUE_CLOSED, FactKind.LABEL_REMOVED, FactKind.CANCEL])
    @pytest.mark.parametrize("state", sorted(LIVE | {State.AGENT_LOST}))
    def test_what_nobody_wants_any_more_is_cancelled_and_stopped(self, state: State, kind: FactKind) -> None:
        decision = decide(a_task_in(state), a_fact(kind), LATER)
        assert (decision.task.state, decision.task.completed_at) == (State.CANCELLED, LATER)
        assert set(decision.outbox) == {OutboxKind.STOP, *SHOW_STATE}

    @pytest.mark.parametrize("reason", ["issue_closed", "label_removed"])
    def test_an_issue_that_is_wanted_again_begins_afresh(self, reason: str) -> None:
        gone = a_task_in(State.CANCELLED, reason=reason, retry_count=2, review_count=2)
        task = decide(gone, a_fact(FactKind.ISSUE_WANTED), LATER).task
        assert (task.state, task.ready, task.retry_count, task.review_count) == (State.CREATED, True, 0, 0)

    def test_the_forge_does_not_bring_back_what_a_person_cancelled(self) -> None:
        with pytest.raises(Refused):
            decide(a_task_in(State.CANCELLED, reason="cancelled"), a_fact(FactKind.ISSUE_WANTED), LATER)

    @pytest.mark.parametrize("state", [State.FAILED, State.AGENT_LOST, State.CANCELLED])
    def test_a_retry_begins_afresh_and_stops_the_old_run(self, state: State) -> None:
        decision = decide(
            a_task_in(state, retry_count=2, review_count=2, reason="silent"), a_fact(FactKind.RETRY), LATER
        )
        task = decision.task
        assert (task.state, task.ready, task.run, task.completed_at, task.reason) == (
            State.CREATED,
            True,
            2,
            None,
            None,
        )
        assert (task.retry_count, task.review_count, task.unconfirmed) == (0, 0, 0)
        assert OutboxKind.STOP in decision.outbox

    def test_what_is_completed_is_not_done_again(self) -> None:
        with pytest.raises(Refused, match="completed"):
            decide(a_task_in(State.COMPLETED), a_fact(FactKind.RETRY), LATER)

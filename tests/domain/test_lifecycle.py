"""A task from its request to the end of its runs: created, assigned, running, silent."""

from datetime import timedelta
from typing import Any

import pytest

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import (
    FIRST_BACK_OFF,
    LONGEST_BACK_OFF,
    UNCONFIRMED_LIMIT,
    FactKind,
    OutboxKind,
    decide,
    new_task,
)
from app.domain.task import Mode, Priority, State
from tests.builders import AT, a_fact, a_task
from tests.domain.transitions import LATER, SHOW_STATE, a_task_in, the


class TestCreated:
    def test_a_request_makes_a_task_that_may_be_taken_at_once(self) -> None:
        asked = {
            "task_id": "acme/widgets#12",
            "mode": "undecided",
            "priority": 2,
            "requirement_set_id": 1,
            "wants_pull": False,
            "note": "left out",
        }
        task = new_task(5, asked, AT)
        assert (task.id, task.state, task.mode, task.priority) == (5, State.CREATED, Mode.UNDECIDED, Priority.HIGH)
        assert (task.ready, task.version, task.run, task.wants_pull, task.max_retries) == (True, 1, 0, False, 2)

    def test_placing_it_on_a_host_begins_a_run_and_owes_its_start(self) -> None:
        decision = the(a_task(agent_id="agent-9", reason="lost"), FactKind.PLACED, host_id="host-1")
        task = decision.task
        assert (task.state, task.run, task.assigned_at, task.ready) == (State.ASSIGNED, 1, LATER, False)
        assert (task.mode, task.host_id, task.agent_id, task.reason) == (Mode.SSH_CLI, "host-1", None, None)
        assert set(decision.outbox) == {OutboxKind.START, OutboxKind.LABEL, OutboxKind.ASSIGN}

    def test_an_agent_that_claims_it_begins_a_run_that_nobody_has_to_start(self) -> None:
        decision = the(a_task(host_id="host-9"), FactKind.CLAIMED, agent_id="agent-1")
        task = decision.task
        assert (task.state, task.run, task.mode, task.agent_id, task.host_id) == (
            State.ASSIGNED,
            1,
            Mode.HTTP_PULL,
            "agent-1",
            None,
        )
        assert OutboxKind.START not in decision.outbox

    def test_a_back_off_that_is_over_makes_it_ready(self) -> None:
        task = the(a_task(ready=False, due_at=AT), FactKind.DUE).task
        assert (task.state, task.ready, task.due_at) == (State.CREATED, True, None)

    def test_an_operator_need_not_wait_for_the_back_off(self) -> None:
        assert the(a_task(ready=False, due_at=AT), FactKind.RETRY).task.ready


class TestAssigned:
    def test_a_start_makes_it_running(self) -> None:
        task = the(a_task_in(State.ASSIGNED, unconfirmed=3), FactKind.STARTED).task
        assert (task.state, task.started_at, task.unconfirmed) == (State.RUNNING, LATER, 0)

    def test_a_second_start_says_nothing_new(self) -> None:
        assert the(a_task_in(State.RUNNING), FactKind.STARTED).transition.quiet

    def test_never_confirmed_it_goes_back_and_the_attempt_is_not_counted(self) -> None:
        decision = the(a_task_in(State.ASSIGNED), FactKind.EXPIRED)
        task = decision.task
        assert (task.state, task.ready, task.retry_count, task.unconfirmed) == (State.CREATED, True, 0, 1)
        assert set(decision.outbox) == {OutboxKind.STOP, *SHOW_STATE}

    def test_never_confirmed_too_often_it_fails(self) -> None:
        task, rounds = a_task_in(State.ASSIGNED), 0
        while task.state is State.ASSIGNED:
            task = the(task, FactKind.EXPIRED).task
            rounds += 1
            task = task if task.state is State.FAILED else the(task, FactKind.PLACED, host_id="host-1").task
        assert (rounds, task.reason) == (UNCONFIRMED_LIMIT, "never_confirmed")

    def test_finishing_confirms_a_run_that_never_said_it_had_started(self) -> None:
        assert the(a_task_in(State.ASSIGNED, wants_pull=False), FactKind.FINISHED).task.state is State.COMPLETED


class TestRunning:
    def test_a_beat_is_no_event(self) -> None:
        assert the(a_task_in(State.RUNNING), FactKind.BEAT).transition.quiet

    @pytest.mark.parametrize("state", [State.ASSIGNED, State.RUNNING])
    def test_a_pull_request_makes_it_wait_for_review(self, state: State) -> None:
        decision = the(
            a_task_in(state),
            FactKind.PULL_OPENED,
            number=13,
            title="Fix",
            url="https://forge.example.org/13",
            head="new",
        )
        task = decision.task
        assert (task.state, task.pr_number, task.pr_title, task.head) == (State.REVIEW_PENDING, 13, "Fix", "new")
        assert set(decision.outbox) == {OutboxKind.ASK_REVIEW, *SHOW_STATE}

    @pytest.mark.parametrize("state", [State.ASSIGNED, State.RUNNING])
    def test_a_pull_request_that_others_open_while_a_host_works_is_known_and_ends_nothing(self, state: State) -> None:
        opened = a_fact(FactKind.PULL_OPENED, number=13, title="Fix", url="https://forge.example.org/13", head="new")
        task = decide(a_task_in(state), opened, LATER).task
        assert (task.state, task.pr_number, task.head) == (state, 13, None)
        done = the(task, FactKind.FINISHED, pushed=True, head="new")
        assert (done.task.state, done.outbox) == (State.RUNNING, (OutboxKind.OPEN_PULL,)), (
            "what was pushed is looked at first"
        )
        assert decide(a_task_in(state, host_id=None, agent_id="a"), opened, LATER).task.state is State.REVIEW_PENDING

    def test_the_pull_request_of_an_earlier_run_does_not_end_this_one(self) -> None:
        with pytest.raises(Refused):
            decide(a_task_in(State.RUNNING, pr_number=13), a_fact(FactKind.PULL_OPENED, number=13), LATER)

    def test_work_that_is_on_the_forge_gets_its_pull_request(self) -> None:
        decision = the(a_task_in(State.RUNNING, head="old"), FactKind.FINISHED, pushed=True, head="new", session="s-1")
        assert (decision.task.state, decision.task.session, decision.outbox) == (
            State.RUNNING,
            "s-1",
            (OutboxKind.OPEN_PULL,),
        )

    @pytest.mark.parametrize(
        "detail",
        [{}, {"pushed": False, "head": "new"}, {"pushed": True, "head": None}, {"pushed": True, "head": "old"}],
    )
    def test_a_finish_that_delivered_nothing_new_is_no_success(self, detail: dict[str, Any]) -> None:
        task = the(a_task_in(State.RUNNING, head="old"), FactKind.FINISHED, **detail).task
        assert (task.state, task.reason) == (State.FAILED, "no_delivery")

    def test_a_finish_that_says_why_nothing_changed_is_an_end_of_its_own(self) -> None:
        task = the(a_task_in(State.RUNNING), FactKind.FINISHED, summary="**Nothing to change:** it is right.").task
        assert (task.state, task.reason) == (State.FAILED, "nothing_to_change")

    @pytest.mark.parametrize(
        "detail",
        [
            {"summary": " "},
            {"summary": "Nothing to change: x", "unreadable": True},
            {"summary": "Nothing to change: x", "commits": ["a"]},
            {"summary": "All done."},
            {"summary": "Nothing to change:"},
        ],
    )
    def test_words_that_are_no_reason_are_none(self, detail: dict[str, Any]) -> None:
        assert the(a_task_in(State.RUNNING), FactKind.FINISHED, **detail).task.reason == "no_delivery"

    def test_in_a_round_of_review_the_reviewer_hears_the_reason(self) -> None:
        decision = the(
            a_task_in(State.RUNNING, pr_number=13, review_count=1),
            FactKind.FINISHED,
            summary="Nothing to change: it is right.",
        )
        assert (decision.task.state, decision.task.reason) == (State.REVIEW_PENDING, "nothing_to_change")
        assert OutboxKind.ANSWER in decision.outbox

    def test_where_no_pull_request_is_wanted_finishing_completes_it(self) -> None:
        decision = the(a_task_in(State.RUNNING, wants_pull=False), FactKind.FINISHED)
        assert (decision.task.state, decision.task.completed_at) == (State.COMPLETED, LATER)
        assert set(decision.outbox) == {OutboxKind.RECEIPT, *SHOW_STATE}

    def test_a_passing_failure_is_tried_again_after_a_back_off(self) -> None:
        decision = the(a_task_in(State.RUNNING), FactKind.FAILED, transient=True, reason="timed_out")
        task = decision.task
        assert (task.state, task.ready, task.retry_count, task.reason) == (State.CREATED, False, 1, "timed_out")
        assert (task.due_at, set(decision.outbox)) == (LATER + FIRST_BACK_OFF, SHOW_STATE)

    def test_the_back_off_doubles_up_to_its_longest(self) -> None:
        waits = [
            (
                the(
                    a_task_in(State.RUNNING, retry_count=n, max_retries=20), FactKind.FAILED, transient=True
                ).task.due_at
                or AT
            )
            - LATER
            for n in range(20)
        ]
        assert waits[:3] == [FIRST_BACK_OFF, FIRST_BACK_OFF * 2, FIRST_BACK_OFF * 4]
        assert waits[-1] == LONGEST_BACK_OFF == max(waits)

    @pytest.mark.parametrize(
        ("retry_count", "transient"), [(0, False), (2, True)], ids=["it would fail again", "no retries left"]
    )
    def test_any_other_failure_is_told(self, retry_count: int, transient: bool) -> None:
        decision = the(
            a_task_in(State.RUNNING, retry_count=retry_count), FactKind.FAILED, transient=transient, reason="cli_failed"
        )
        assert (decision.task.state, decision.task.reason, set(decision.outbox)) == (
            State.FAILED,
            "cli_failed",
            SHOW_STATE,
        )

    def test_a_limit_parks_it_until_the_reset_and_costs_no_attempt(self) -> None:
        until = AT + timedelta(hours=3)
        task = the(a_task_in(State.RUNNING), FactKind.LIMIT_REACHED, until=until.isoformat(), session="s-1").task
        assert (task.state, task.due_at, task.reason) == (State.PARKED, until, "limit")
        assert (task.retry_count, task.session) == (0, "s-1")

    def test_a_limit_without_a_reset_time_waits_for_a_person(self) -> None:
        assert the(a_task_in(State.RUNNING), FactKind.LIMIT_REACHED).task.due_at is None


class TestSilence:
    def test_past_the_deadline_the_runner_is_lost_and_told_to_stop(self) -> None:
        decision = the(a_task_in(State.RUNNING), FactKind.EXPIRED)
        task = decision.task
        assert (task.state, task.reason, task.due_at, decision.outbox) == (
            State.AGENT_LOST,
            "silent",
            LATER,
            (OutboxKind.STOP,),
        )

    def test_the_silence_of_an_older_run_is_no_news(self) -> None:
        with pytest.raises(Refused) as refused:
            decide(a_task_in(State.RUNNING), a_fact(FactKind.EXPIRED, run=1, reason="lost"), LATER)
        assert refused.value.kind is Kind.STALE

    def test_lost_it_is_tried_again_while_retries_are_left(self) -> None:
        task = the(a_task_in(State.AGENT_LOST, retry_count=1), FactKind.DUE).task
        assert (task.state, task.ready, task.retry_count) == (State.CREATED, True, 2)

    def test_lost_without_retries_it_fails_with_the_reason_it_was_lost_for(self) -> None:
        decision = the(a_task_in(State.AGENT_LOST, retry_count=2, reason="silent"), FactKind.DUE)
        assert (decision.task.state, decision.task.reason, set(decision.outbox)) == (State.FAILED, "silent", SHOW_STATE)

    @pytest.mark.parametrize("kind", [FactKind.DUE, FactKind.RETRY])
    def test_a_pause_ends_by_time_or_by_an_operator_and_keeps_its_session(self, kind: FactKind) -> None:
        task = the(a_task_in(State.PARKED, session="s-1", reason="limit"), kind).task
        assert (task.state, task.ready, task.session, task.reason) == (State.CREATED, True, "s-1", None)
        assert (task.host_id, task.retry_count) == ("host-1", 0)

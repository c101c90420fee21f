"""The life of a task: every state meets every fact, and section 4 of the design as sentences."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import (
    FINAL_STATES,
    FIRST_BACK_OFF,
    LONGEST_BACK_OFF,
    REPORTED_BY_RUNNERS,
    TRANSITIONS,
    UNCONFIRMED_LIMIT,
    Decision,
    Fact,
    FactKind,
    OutboxKind,
    Transition,
    candidates,
    decide,
    new_task,
)
from app.domain.task import LIVE, Mode, Priority, State, Task
from tests.builders import AT, a_fact, a_task

LATER = AT + timedelta(minutes=1)
FACTS = tuple(kind for kind in FactKind if kind is not FactKind.REQUESTED)
SHOW_STATE = {OutboxKind.COMMENT, OutboxKind.LABEL, OutboxKind.STATUS}

# Where each fact may lead, told a second time. C created, A assigned, R running, V review_pending, P parked,
# D completed, F failed, L agent_lost, X cancelled; `.` refused; several letters where it depends on the task.
GRID = """
                    C    A    R    V    P    D    F    L    X
placed              A    .    .    .    .    .    .    .    .
claimed             A    .    .    .    .    .    .    .    .
started             .    R    R    .    .    .    .    .    .
beat                .    A    R    .    .    .    .    .    .
expired             .    CF   L    .    .    .    .    .    .
given_back          .    C    C    .    .    .    .    .    .
finished            .    RDFV RDFV V    .    .    .    .    .
failed              .    CF   CF   .    .    .    .    .    .
limit_reached       .    P    P    .    .    .    .    .    .
due                 C    .    .    .    C    .    .    CF   .
pull_opened         .    VA.  VR.  V    .    .    .    .    .
pull_reopened       .    .    .    .    .    .    .    .    V.
pull_merged         D    D    D    D    D    D    D    D    D
pull_closed         X.   X.   X.   X.   X.   .    F.   .    X.
pull_news           .    .    .    V    .    .    .    .    .
changes_requested   .    .    .    RF   .    .    .    .    .
conflicted          .    .    .    R    .    .    .    .    .
issue_edited        C    A    R    V    P    .    F    L    X
text_accepted       C    A    R    V    P    .    F    L    X
rerouted            C    .    .    .    P    .    .    .    .
issue_wanted        .    .    .    .    .    .    C    .    C.
issue_closed        X    X    X    X    X    .    .    X    .
label_removed       X    X    X    X    X    .    .    X    .
cancel              X    X    X    X    X    .    .    X    .
retry               C.   .    .    .    C    .    C    C    C
raised              C    A    R    V    CP   D    F    L    X
"""
STATES = dict(zip("CARVPDFLX", State, strict=True))
ENDINGS = {
    (state, FactKind(row.split()[0])): cell
    for row in GRID.strip().splitlines()[1:]
    for state, cell in zip(State, row.split()[1:], strict=True)
}

TASKS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "wants no pull request": {"wants_pull": False},
    "no retries left": {"retry_count": 2},
    "never confirmed": {"unconfirmed": UNCONFIRMED_LIMIT - 1},
    "has a pull request": {"pr_number": 13, "head": "old"},
    "no reviews left": {"review_count": 2},
    "in a round of review": {"pr_number": 13, "head": "old", "review_count": 1},
    "with an agent": {"host_id": None, "agent_id": "agent-1"},
    "its pull request was closed": {"reason": "pull_closed"},
    "its issue was closed": {"reason": "issue_closed"},
    "waits for the clock": {"ready": False},
    "its budget is used up": {"reason": "budget"},
}
DETAILS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "transient": {"transient": True},
    "pushed": {"pushed": True, "head": "new"},
    "pushed what was known": {"pushed": True, "head": "old"},
    "says why nothing changed": {"summary": "Looked.\nNothing to change: it is right as it is."},
}
PLACES: dict[FactKind, dict[str, Any]] = {
    FactKind.PLACED: {"host_id": "host-1"},
    FactKind.CLAIMED: {"agent_id": "agent-1"},
    FactKind.REROUTED: {"requirement_set_id": 7, "priority": 3},
}


def a_task_in(state: State, **given: Any) -> Task:
    """A task in its second run that came to `state` on a host."""
    usual: dict[str, Any] = {"run": 2, "version": 7, "host_id": "host-1"}
    if state in FINAL_STATES:
        usual["completed_at"] = AT
    return a_task(**usual | given | {"state": state, "ready": given.get("ready", True) and state is State.CREATED})


def the(task: Task, kind: FactKind, **detail: Any) -> Decision:
    """What a fact does that comes from the newest run."""
    return decide(task, Fact(kind, detail, run=task.run), LATER)


def variants(state: State, kind: FactKind) -> Iterator[tuple[Task, Fact]]:
    for given_, detail, told in product(TASKS.values(), DETAILS.values(), (True, False)):
        task = a_task_in(state, **given_)
        if told or kind not in REPORTED_BY_RUNNERS:
            yield task, Fact(kind, PLACES.get(kind, {}) | detail, run=task.run if told else None)


def decided(task: Task, fact: Fact) -> Decision | Refused:
    try:
        return decide(task, fact, LATER)
    except Refused as refused:
        return refused


every_meeting = pytest.mark.parametrize(
    ("state", "kind"), [pytest.param(state, kind, id=f"{kind}-when-{state}") for state in State for kind in FACTS]
)


class TestEveryStateMeetsEveryFact:
    @every_meeting
    def test_and_goes_where_the_grid_says(self, state: State, kind: FactKind) -> None:
        answers = [decided(task, fact) for task, fact in variants(state, kind)]
        ends = {answer.task.state if isinstance(answer, Decision) else None for answer in answers}
        assert ends == {STATES.get(letter) for letter in ENDINGS[state, kind]}

    @every_meeting
    def test_and_the_first_row_that_fits_wins(self, state: State, kind: FactKind) -> None:
        for task, fact in variants(state, kind):
            fitting = [row for row in candidates(state, kind) if not row.only_if or row.only_if(task, fact)]
            answer = decided(task, fact)
            assert (answer.transition if isinstance(answer, Decision) else None) is next(iter(fitting), None)

    @every_meeting
    def test_and_a_refusal_names_the_task_and_where_it_would_be_possible(self, state: State, kind: FactKind) -> None:
        for refused in (decided(*variant) for variant in variants(state, kind)):
            if isinstance(refused, Refused):
                assert refused.kind is Kind.INVALID
                assert f"acme/widgets#12 is {state}: '{kind}'" in str(refused)
                assert all(source in str(refused) for row in TRANSITIONS if row.fact is kind for source in row.sources)

    @every_meeting
    def test_and_each_transition_keeps_the_invariants_of_a_task(self, state: State, kind: FactKind) -> None:
        for task, fact in variants(state, kind):
            answer = decided(task, fact)
            if isinstance(answer, Refused):
                continue
            after = answer.task
            if answer.transition.quiet:
                assert after == task
                continue
            assert (after.version, after.moved_at) == (task.version + 1, LATER)
            assert not after.ready or after.state is State.CREATED
            assert (after.completed_at is not None) == (after.state in FINAL_STATES)
            assert answer.outbox == answer.transition.outbox
            rounds = (FactKind.CHANGES_REQUESTED, FactKind.CONFLICTED)
            begins = kind in (FactKind.PLACED, FactKind.CLAIMED) or (kind in rounds and after.state is State.RUNNING)
            assert after.run - task.run == begins
            assert (after.id, after.task_id, after.created_at, after.branch, after.max_retries) == (
                task.id, task.task_id, task.created_at, task.branch, task.max_retries,
            )  # fmt: skip
            if kind is not FactKind.REROUTED:
                assert (after.priority, after.requirement_set_id) == (task.priority, task.requirement_set_id)

    @pytest.mark.parametrize("kind", sorted(REPORTED_BY_RUNNERS))
    @pytest.mark.parametrize("fence", [None, 0, 1, 3])
    def test_and_a_run_that_is_not_the_newest_is_stale_whatever_it_tells(
        self, kind: FactKind, fence: int | None
    ) -> None:
        for state in State:
            with pytest.raises(Refused) as refused:
                decide(a_task_in(state), a_fact(kind, run=fence, pushed=True, head="new"), LATER)
            assert refused.value.kind is Kind.STALE
            assert "acme/widgets#12" in str(refused.value) and "the newest run is 2" in str(refused.value)


@pytest.mark.parametrize("row", [m for m in TRANSITIONS if m.only_if], ids=lambda m: f"{m.fact}-{m.only_if.__name__}")
def test_the_walk_makes_each_guard_true_and_false(row: Transition) -> None:
    assert row.only_if
    met = {row.only_if(task, fact) for state in row.sources for task, fact in variants(state, row.fact)}
    assert met == {True, False}


@pytest.mark.parametrize("number", range(len(TRANSITIONS)), ids=lambda n: f"{n}-{TRANSITIONS[n].fact}")
def test_the_walk_takes_each_row_of_the_table(number: int) -> None:
    met = [decided(*v) for state in TRANSITIONS[number].sources for v in variants(state, TRANSITIONS[number].fact)]
    assert any(isinstance(answer, Decision) and answer.transition is TRANSITIONS[number] for answer in met)


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


details = st.fixed_dictionaries(
    {
        "host_id": st.just("host-1"),
        "agent_id": st.just("agent-1"),
        "requirement_set_id": st.just(7),
        "priority": st.just(3),
    },
    optional={
        "transient": st.booleans(),
        "pushed": st.booleans(),
        "head": st.sampled_from([None, "a", "b", "c"]),
        "number": st.just(13),
        "reason": st.sampled_from(["silent", "pull_closed", "issue_closed"]),
    },
)
happenings = st.lists(st.tuples(st.sampled_from(FACTS), details, st.integers(0, 2)), max_size=40)


@given(happenings, st.integers(0, 3), st.booleans())
@settings(max_examples=200, deadline=None, database=None)
def test_no_sequence_of_facts_leads_astray(
    told: list[tuple[FactKind, dict[str, Any], int]], most: int, wants: bool
) -> None:
    task = a_task(max_retries=most, wants_pull=wants)
    for kind, detail, behind in told:
        before = replace(task)
        answer = decided(task, Fact(kind, detail, run=task.run - behind))
        if isinstance(answer, Refused):
            assert task == before
            continue
        task = answer.task
        assert task.state in State
        assert task.run - before.run in (0, 1)
        assert task.version - before.version == (not answer.transition.quiet)
        assert 0 <= task.retry_count <= most and 0 <= task.review_count <= most
        assert 0 <= task.unconfirmed < UNCONFIRMED_LIMIT
        assert (task.completed_at is not None) == (task.state in FINAL_STATES)
        assert not task.ready or task.state is State.CREATED
        assert task.state is not State.AGENT_LOST or task.due_at
        assert task.state is not State.CREATED or task.ready or task.due_at

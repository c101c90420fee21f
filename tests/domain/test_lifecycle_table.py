"""Every state meets every fact: the transition table does what the grid says, whatever the task."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import Kind, Refused
from app.domain.lifecycle import (
    FINAL_STATES,
    REPORTED_BY_RUNNERS,
    TRANSITIONS,
    UNCONFIRMED_LIMIT,
    Decision,
    Fact,
    FactKind,
    Transition,
    candidates,
    decide,
)
from app.domain.task import State, Task
from tests.builders import a_fact, a_task
from tests.domain.transitions import LATER, a_task_in

FACTS = tuple(kind for kind in FactKind if kind is not FactKind.REQUESTED)

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

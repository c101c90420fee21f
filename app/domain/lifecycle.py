"""The lifecycle of a task: one table of transitions, and the function that applies it.

The first row applies whose sources include the task's state and whose guard holds. Made from this table: the code
that moves tasks, docs/lifecycle.md, the database's CHECK, the test matrix and the wording of refusals.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypedDict

from app.domain.errors import Kind, Refused
from app.domain.task import LIVE, WORKING, Mode, Priority, State, Task

UNCONFIRMED_LIMIT = 5
FIRST_BACK_OFF = timedelta(seconds=5)
LONGEST_BACK_OFF = timedelta(minutes=10)
NOTHING_TO_CHANGE = re.compile(r"^\W{0,4}nothing to change\W{1,4}\w", re.IGNORECASE | re.MULTILINE)
FINAL_STATES = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class FactKind(StrEnum):
    """Kinds of fact: reported by a runner, received from the forge, observed by a timer, or requested by an operator.

    The values are stored in the database: add one, never rename one.
    """

    REQUESTED = "requested"
    PLACED = "placed"
    CLAIMED = "claimed"
    STARTED = "started"
    BEAT = "beat"
    EXPIRED = "expired"
    GIVEN_BACK = "given_back"
    FINISHED = "finished"
    FAILED = "failed"
    LIMIT_REACHED = "limit_reached"
    DUE = "due"
    PULL_OPENED = "pull_opened"
    PULL_REOPENED = "pull_reopened"
    PULL_MERGED = "pull_merged"
    PULL_CLOSED = "pull_closed"
    PULL_NEWS = "pull_news"
    CHANGES_REQUESTED = "changes_requested"
    CONFLICTED = "conflicted"
    ISSUE_WANTED = "issue_wanted"
    ISSUE_CLOSED = "issue_closed"
    LABEL_REMOVED = "label_removed"
    ISSUE_EDITED = "issue_edited"
    TEXT_ACCEPTED = "text_accepted"
    REROUTED = "rerouted"
    CANCEL = "cancel"
    RETRY = "retry"
    RAISED = "raised"


REPORTED_BY_RUNNERS = frozenset(
    {FactKind.STARTED, FactKind.BEAT, FactKind.GIVEN_BACK, FactKind.FINISHED, FactKind.FAILED, FactKind.LIMIT_REACHED}
)


class OutboxKind(StrEnum):
    """Kinds of outbox entry: side effects written with the event, performed later and safe to repeat.

    The values are stored in the database: add one, never rename one.
    """

    START = "start"
    STOP = "stop"
    OPEN_PULL = "open_pull"
    COMMENT = "comment"
    LABEL = "label"
    ASSIGN = "assign"
    STATUS = "status"
    ASK_REVIEW = "ask_review"
    ANSWER = "answer"
    NOTE = "note"
    RECEIPT = "receipt"


@dataclass(frozen=True)
class Fact:
    """An input to the state machine."""

    kind: FactKind
    detail: Mapping[str, Any] = field(default_factory=dict)  # JSON; which names it has depends on the kind
    run: int | None = None  # the number of the run that reports it: its fence
    key: str | None = None  # a fact whose key was recorded before changes nothing


REQUESTED_FIELDS = (
    "task_id", "mode", "priority", "requirement_set_id", "forge", "repository_id", "issue_number", "branch",
    "wants_pull", "max_retries",
)  # fmt: skip

Guard = Callable[[Task, Fact], bool]


class TaskChanges(TypedDict, total=False):
    """The fields of a task that a transition replaces."""

    version: int
    state: State
    mode: Mode
    priority: Priority
    requirement_set_id: int
    ready: bool
    moved_at: datetime
    retry_count: int
    review_count: int
    unconfirmed: int
    run: int
    host_id: str | None
    agent_id: str | None
    due_at: datetime | None
    reason: str | None
    session: str | None
    pr_number: int | None
    pr_title: str | None
    pr_url: str | None
    head: str | None
    assigned_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None


Change = Callable[[Task, Fact, datetime], TaskChanges]


@dataclass(frozen=True)
class Transition:
    """One row of the table."""

    sources: frozenset[State]  # the states in which it applies
    fact: FactKind
    target: State | None  # None: the state stays
    only_if: Guard | None = None
    outbox: tuple[OutboxKind, ...] = ()  # the entries to write with the event
    changes: tuple[Change, ...] = ()  # what else changes in the task
    quiet: bool = False  # the fact says nothing new: no event is written and nothing changes


@dataclass(frozen=True)
class Decision:
    """What a fact does to a task: the task after it, and the row that applied."""

    task: Task
    transition: Transition

    @property
    def outbox(self) -> tuple[OutboxKind, ...]:
        return self.transition.outbox


def new_task(id_: int, requested: Mapping[str, Any], at: datetime) -> Task:
    """The task that a REQUESTED fact creates. `requested` is the fact's detail: JSON with the names of Task's fields."""
    given = {name: requested[name] for name in REQUESTED_FIELDS if name in requested}
    given |= {"mode": Mode(requested["mode"]), "priority": Priority(requested["priority"])}
    given["requirement_set_id"] = _requirement_set_id(requested)
    return Task(id=id_, state=State.CREATED, version=1, ready=True, created_at=at, moved_at=at, **given)


def decide(task: Task, fact: Fact, at: datetime) -> Decision:
    """Apply the first row that fits to `task` at the moment `at`.

    Raises Refused: `stale` for a report or an expiry of an older run, `invalid` when no row fits.
    """
    fenced = fact.kind in REPORTED_BY_RUNNERS or (fact.kind is FactKind.EXPIRED and fact.run is not None)
    if fenced and fact.run != task.run:
        raise Refused(Kind.STALE, f"{task.task_id}: run {fact.run} is over; the newest run is {task.run}.")
    for row in candidates(task.state, fact.kind):
        if not row.only_if or row.only_if(task, fact):
            return Decision(task if row.quiet else _apply(row, task, fact, at), row)
    raise Refused(Kind.INVALID, refusal(task, fact.kind))


def refusal(task: Task, kind: FactKind) -> str:
    """Why a fact of this kind has no effect on the task now, and when it would have one."""
    rows = [row for row in TRANSITIONS if row.fact is kind]
    always = frozenset(state for row in rows if not row.only_if for state in row.sources)
    conditions = [f"is {_either(always)}"] if always else []
    for row in rows:
        if row.only_if and not row.sources <= always:
            conditions.append(f"is {_either(row.sources)} and {in_words(row.only_if)}")
    when = ", or ".join(conditions) or "does not exist yet"
    return f"{task.task_id} is {task.state}: '{kind}' has no effect now. It applies to a task that {when}."


def _either(states: frozenset[State]) -> str:
    return " or ".join(state for state in State if state in states)


def in_words(function: Callable[..., Any]) -> str:
    """The name of a guard or a change as words."""
    return function.__name__.replace("_", " ")


def _apply(row: Transition, task: Task, fact: Fact, at: datetime) -> Task:
    state = row.target or task.state
    changes: TaskChanges = {
        "version": task.version + 1, "state": state, "moved_at": at, "ready": False, "due_at": None,
        "completed_at": (task.completed_at or at) if state in FINAL_STATES else None,
    }  # fmt: skip
    for change in row.changes:
        changes |= change(task, fact, at)
    return replace(task, **changes)


def _requirement_set_id(detail: Mapping[str, Any]) -> int:
    """Events written before schema 0014 call it capset_id."""
    return int(detail["requirement_set_id"] if "requirement_set_id" in detail else detail["capset_id"])


# --- guards: conditions on the task and the fact; their names follow "a task that" in a refusal ----------


def wants_a_pull_request_and_has_a_new_commit(task: Task, fact: Fact) -> bool:
    return task.wants_pull and has_a_new_commit(task, fact)


def has_a_new_commit(task: Task, fact: Fact) -> bool:
    """The run pushed a commit that no pull request has had as its head."""
    return bool(fact.detail.get("pushed")) and fact.detail.get("head") not in (None, task.head)


def wants_no_pull_request_and_its_output_is_readable(task: Task, fact: Fact) -> bool:
    """Without a pull request only the CLI's own output says how the run ended, so it must be readable."""
    return not task.wants_pull and not fact.detail.get("unreadable")


def says_in_a_review_round_why_nothing_changed(task: Task, fact: Fact) -> bool:
    """In a review round the agent changed nothing and said why: the reviewer decides."""
    return bool(task.pr_number and task.review_count) and says_why_nothing_changed(task, fact)


def says_why_nothing_changed(_: Task, fact: Fact) -> bool:
    """Nothing was pushed, and a line of the agent's last message says why, as the prompt asks for."""
    done = fact.detail.get("pushed") or fact.detail.get("commits") or fact.detail.get("unreadable")
    return not done and bool(NOTHING_TO_CHANGE.search(str(fact.detail.get("summary") or "")))


def may_succeed_on_another_try(task: Task, fact: Fact) -> bool:
    return bool(fact.detail.get("transient")) and task.retries_left


def has_retries_left(task: Task, _: Fact) -> bool:
    return task.retries_left


def was_unconfirmed_too_often(task: Task, _: Fact) -> bool:
    return task.unconfirmed + 1 >= UNCONFIRMED_LIMIT


def has_no_other_pull_request(task: Task, fact: Fact) -> bool:
    """It is the task's first pull request, or the one to which the current run delivered."""
    return task.pr_number is None or fact.run == task.run


def works_on_a_host_while_others_open_the_pull_request(task: Task, fact: Fact) -> bool:
    """Someone else opened the pull request while a host still works: the run goes on, and ends with its result.

    An agent may open its own pull request; that ends the run.
    """
    return task.host_id is not None and task.pr_number is None and fact.run is None


def has_review_rounds_left(task: Task, _: Fact) -> bool:
    return task.review_count < task.max_retries


def is_on_a_host_and_has_review_rounds_left(task: Task, _: Fact) -> bool:
    return task.host_id is not None and task.review_count < task.max_retries


def is_on_a_host(task: Task, _: Fact) -> bool:
    return task.host_id is not None


def has_this_pull_request(task: Task, fact: Fact) -> bool:
    return task.pr_number is not None and fact.detail.get("number") in (None, task.pr_number)


def ended_with_its_pull_request(task: Task, _: Fact) -> bool:
    return task.reason == "pull_closed"


def waits_for_its_back_off(task: Task, _: Fact) -> bool:
    return not task.ready


def waits_for_its_budget(task: Task, _: Fact) -> bool:
    return task.reason == "budget"


def was_ended_on_the_forge(task: Task, _: Fact) -> bool:
    return task.reason in ("issue_closed", "label_removed")


# --- changes: the fields of the task that a row sets ------------------------------------------------------


def next_run(task: Task, _: Fact, at: datetime) -> TaskChanges:
    return {"run": task.run + 1, "assigned_at": at, "started_at": None, "reason": None}


def set_host(_: Task, fact: Fact, __: datetime) -> TaskChanges:
    return {"host_id": fact.detail["host_id"], "agent_id": None, "mode": Mode.SSH_CLI}


def set_agent(_: Task, fact: Fact, __: datetime) -> TaskChanges:
    return {"agent_id": fact.detail["agent_id"], "host_id": None, "mode": Mode.HTTP_PULL}


def set_started(_: Task, __: Fact, at: datetime) -> TaskChanges:
    return {"started_at": at, "unconfirmed": 0}


def count_unconfirmed(task: Task, _: Fact, __: datetime) -> TaskChanges:
    return {"unconfirmed": task.unconfirmed + 1, "reason": None}


def make_ready(_: Task, __: Fact, ___: datetime) -> TaskChanges:
    return {"ready": True}


def reset_counters(_: Task, __: Fact, ___: datetime) -> TaskChanges:
    """A person asked for another try: earlier attempts no longer count."""
    return {"retry_count": 0, "review_count": 0, "unconfirmed": 0, "reason": None}


def count_retry(task: Task, fact: Fact, _: datetime) -> TaskChanges:
    return {"retry_count": task.retry_count + 1, "reason": fact.detail.get("reason", task.reason)}


def set_back_off(task: Task, _: Fact, at: datetime) -> TaskChanges:
    return {"due_at": at + min(FIRST_BACK_OFF * 2**task.retry_count, LONGEST_BACK_OFF)}


def set_due_now(_: Task, __: Fact, at: datetime) -> TaskChanges:
    return {"due_at": at}


def set_due_at_reset(_: Task, fact: Fact, __: datetime) -> TaskChanges:
    until = fact.detail.get("until")
    return {"due_at": datetime.fromisoformat(until) if until else None}


def keep_session(task: Task, fact: Fact, _: datetime) -> TaskChanges:
    return {"session": fact.detail.get("session") or task.session}


def set_pull_and_head(task: Task, fact: Fact, at: datetime) -> TaskChanges:
    return {**set_pull(task, fact, at), **set_head(task, fact, at)}


def set_pull(task: Task, fact: Fact, _: datetime) -> TaskChanges:
    pull = fact.detail
    return {
        "pr_number": pull.get("number", task.pr_number),
        "pr_title": pull.get("title", task.pr_title),
        "pr_url": pull.get("url", task.pr_url),
    }


def set_head(task: Task, fact: Fact, _: datetime) -> TaskChanges:
    return {"head": fact.detail.get("head", task.head)}


def count_review(task: Task, _: Fact, __: datetime) -> TaskChanges:
    return {"review_count": task.review_count + 1}


def set_reason(reason: str) -> Change:
    """Sets this reason, or the more exact one in the fact's detail."""

    def reason_of(_: Task, fact: Fact, __: datetime) -> TaskChanges:
        return {"reason": fact.detail.get("reason", reason)}

    reason_of.__name__ = f"set_reason_{reason}"
    return reason_of


def keep_waiting_as_before(task: Task, _: Fact, __: datetime) -> TaskChanges:
    """The task stays ready, or keeps waiting for the same moment."""
    return {"ready": task.ready, "due_at": task.due_at}


def set_requirements_and_priority(_: Task, fact: Fact, __: datetime) -> TaskChanges:
    detail = fact.detail
    return {"requirement_set_id": _requirement_set_id(detail), "priority": Priority(detail["priority"])}


def clear_reason(_: Task, __: Fact, ___: datetime) -> TaskChanges:
    return {"reason": None}


# --- the table -------------------------------------------------------------------------------------------

_CREATED, _ASSIGNED = frozenset({State.CREATED}), frozenset({State.ASSIGNED})
_RUNNING, _REVIEW = frozenset({State.RUNNING}), frozenset({State.REVIEW_PENDING})
_PARKED, _LOST = frozenset({State.PARKED}), frozenset({State.AGENT_LOST})
_CANCELLED, _COMPLETED = frozenset({State.CANCELLED}), frozenset({State.COMPLETED})
_FAILED, _FAILED_OR_CANCELLED = frozenset({State.FAILED}), frozenset({State.FAILED, State.CANCELLED})
_RETRYABLE = frozenset({State.FAILED, State.AGENT_LOST, State.CANCELLED})
_ALL, _WAITING = frozenset(State), frozenset({State.CREATED, State.PARKED})
_SHOW_RUNNER = (OutboxKind.LABEL, OutboxKind.ASSIGN)
_SHOW_STATE = (OutboxKind.COMMENT, OutboxKind.LABEL, OutboxKind.STATUS)
_STOP_AND_SHOW = (OutboxKind.STOP, *_SHOW_STATE)

FIRST_OUTBOX = (OutboxKind.COMMENT, OutboxKind.LABEL)  # of a new task: acknowledges the request at once

TRANSITIONS: tuple[Transition, ...] = (
    Transition(_CREATED, FactKind.PLACED, State.ASSIGNED, None,
               (OutboxKind.START, *_SHOW_RUNNER), (next_run, set_host)),
    Transition(_CREATED, FactKind.CLAIMED, State.ASSIGNED, None, _SHOW_RUNNER, (next_run, set_agent)),
    Transition(_CREATED, FactKind.DUE, State.CREATED, changes=(make_ready,)),
    Transition(_ASSIGNED, FactKind.STARTED, State.RUNNING, outbox=(OutboxKind.COMMENT,), changes=(set_started,)),
    Transition(_RUNNING, FactKind.STARTED, State.RUNNING, quiet=True),
    Transition(WORKING, FactKind.BEAT, None, quiet=True),
    Transition(_ASSIGNED, FactKind.EXPIRED, State.FAILED, was_unconfirmed_too_often,
               _STOP_AND_SHOW, (set_reason("never_confirmed"),)),
    Transition(_ASSIGNED, FactKind.EXPIRED, State.CREATED, None, _STOP_AND_SHOW, (count_unconfirmed, make_ready)),
    Transition(WORKING, FactKind.GIVEN_BACK, State.CREATED, None, _SHOW_STATE, (make_ready, clear_reason)),
    Transition(_RUNNING, FactKind.EXPIRED, State.AGENT_LOST, None,
               (OutboxKind.STOP,), (set_reason("silent"), set_due_now)),
    Transition(_LOST, FactKind.DUE, State.CREATED, has_retries_left, _SHOW_STATE, (count_retry, make_ready)),
    Transition(_LOST, FactKind.DUE, State.FAILED, None, _SHOW_STATE, ()),
    Transition(WORKING, FactKind.PULL_OPENED, None, works_on_a_host_while_others_open_the_pull_request,
               (), (set_pull, keep_waiting_as_before)),
    Transition(WORKING, FactKind.PULL_OPENED, State.REVIEW_PENDING, has_no_other_pull_request,
               (*_SHOW_STATE, OutboxKind.ASK_REVIEW), (set_pull_and_head,)),
    Transition(_REVIEW, FactKind.PULL_OPENED, State.REVIEW_PENDING, quiet=True),
    Transition(WORKING, FactKind.FINISHED, State.RUNNING, wants_a_pull_request_and_has_a_new_commit,
               (OutboxKind.OPEN_PULL,), (keep_session,)),
    Transition(WORKING, FactKind.FINISHED, State.COMPLETED, wants_no_pull_request_and_its_output_is_readable,
               (OutboxKind.RECEIPT, *_SHOW_STATE), (keep_session, clear_reason)),
    Transition(WORKING, FactKind.FINISHED, State.REVIEW_PENDING, says_in_a_review_round_why_nothing_changed,
               (OutboxKind.ANSWER, *_SHOW_STATE), (keep_session, set_reason("nothing_to_change"))),
    Transition(WORKING, FactKind.FINISHED, State.FAILED, says_why_nothing_changed,
               _SHOW_STATE, (keep_session, set_reason("nothing_to_change"))),
    Transition(WORKING, FactKind.FINISHED, State.FAILED, None, _SHOW_STATE, (keep_session, set_reason("no_delivery"))),
    Transition(_REVIEW, FactKind.FINISHED, State.REVIEW_PENDING, None, (), (keep_session,)),
    Transition(WORKING, FactKind.FAILED, State.CREATED, may_succeed_on_another_try,
               _SHOW_STATE, (keep_session, count_retry, set_back_off)),
    Transition(WORKING, FactKind.FAILED, State.FAILED, None, _SHOW_STATE, (keep_session, set_reason("failed"))),
    Transition(WORKING, FactKind.LIMIT_REACHED, State.PARKED, None,
               _SHOW_STATE, (keep_session, set_reason("limit"), set_due_at_reset)),
    Transition(_PARKED, FactKind.DUE, State.CREATED, None, _SHOW_STATE, (make_ready, clear_reason)),
    Transition(_REVIEW, FactKind.CHANGES_REQUESTED, State.RUNNING, is_on_a_host_and_has_review_rounds_left,
               (OutboxKind.START, *_SHOW_STATE), (next_run, count_review)),
    Transition(_REVIEW, FactKind.CHANGES_REQUESTED, State.RUNNING, has_review_rounds_left,
               _SHOW_STATE, (next_run, count_review)),
    Transition(_REVIEW, FactKind.CHANGES_REQUESTED, State.FAILED, None,
               (OutboxKind.ANSWER, *_SHOW_STATE), (set_reason("review_loop_limit"),)),
    Transition(_REVIEW, FactKind.CONFLICTED, State.RUNNING, is_on_a_host,
               (OutboxKind.START, *_SHOW_STATE), (next_run,)),
    Transition(_REVIEW, FactKind.CONFLICTED, State.RUNNING, None, _SHOW_STATE, (next_run,)),
    Transition(_REVIEW, FactKind.PULL_NEWS, None, None, (OutboxKind.COMMENT, OutboxKind.STATUS), (set_head,)),
    Transition(_COMPLETED, FactKind.PULL_MERGED, State.COMPLETED, quiet=True),
    Transition(_ALL, FactKind.PULL_MERGED, State.COMPLETED, None,
               (OutboxKind.STOP, OutboxKind.RECEIPT, *_SHOW_STATE), (set_pull_and_head, clear_reason)),
    Transition(LIVE, FactKind.PULL_CLOSED, State.CANCELLED, has_this_pull_request,
               _STOP_AND_SHOW, (set_reason("pull_closed"),)),
    Transition(_FAILED_OR_CANCELLED, FactKind.PULL_CLOSED, None, has_this_pull_request),
    Transition(_CANCELLED, FactKind.PULL_REOPENED, State.REVIEW_PENDING, ended_with_its_pull_request,
               _SHOW_STATE, (set_pull_and_head, clear_reason)),
    Transition(LIVE | _LOST, FactKind.ISSUE_CLOSED, State.CANCELLED, None,
               _STOP_AND_SHOW, (set_reason("issue_closed"),)),
    Transition(LIVE | _LOST, FactKind.LABEL_REMOVED, State.CANCELLED, None,
               _STOP_AND_SHOW, (set_reason("label_removed"),)),
    Transition(LIVE | _LOST, FactKind.CANCEL, State.CANCELLED, None,
               _STOP_AND_SHOW, (set_reason("cancelled"),)),
    Transition(_ALL - _COMPLETED, FactKind.ISSUE_EDITED, None, None, (OutboxKind.NOTE,), (keep_waiting_as_before,)),
    Transition(_ALL - _COMPLETED, FactKind.TEXT_ACCEPTED, None, None, (OutboxKind.COMMENT,), (keep_waiting_as_before,)),
    Transition(_WAITING, FactKind.REROUTED, None, None, (), (set_requirements_and_priority, keep_waiting_as_before)),
    Transition(_FAILED, FactKind.ISSUE_WANTED, State.CREATED, None, _STOP_AND_SHOW, (reset_counters, make_ready)),
    Transition(_CANCELLED, FactKind.ISSUE_WANTED, State.CREATED, was_ended_on_the_forge,
               _STOP_AND_SHOW, (reset_counters, make_ready)),
    Transition(_RETRYABLE, FactKind.RETRY, State.CREATED, None, _STOP_AND_SHOW, (reset_counters, make_ready)),
    Transition(_CREATED, FactKind.RETRY, State.CREATED, waits_for_its_back_off, (), (make_ready,)),
    Transition(_PARKED, FactKind.RETRY, State.CREATED, None, _SHOW_STATE, (make_ready, clear_reason)),
    Transition(_PARKED, FactKind.RAISED, State.CREATED, waits_for_its_budget, _SHOW_STATE, (make_ready, clear_reason)),
    Transition(_ALL, FactKind.RAISED, None, quiet=True),
)  # fmt: skip


def candidates(state: State, kind: FactKind) -> Iterable[Transition]:
    """The rows for a fact of this kind in `state`, in the order in which they are tried."""
    return (row for row in TRANSITIONS if state in row.sources and row.fact is kind)

"""The life of a task as one table, and the one function that reads it.

The first row whose source holds the task's state and whose guard holds wins. From this table come the
code that moves, the diagram in the docs, the database's CHECK, the test matrix and the sentence of each
refusal.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.domain.errors import Kind, Refused
from app.domain.task import LIVE, WORKING, Mode, Priority, State, Task

UNCONFIRMED_LIMIT = 5
FIRST_BACK_OFF = timedelta(seconds=5)
LONGEST_BACK_OFF = timedelta(minutes=10)
NOTHING_TO_CHANGE = re.compile(r"^\W{0,4}nothing to change\W{1,4}\w", re.IGNORECASE | re.MULTILINE)
ENDS = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class FactKind(StrEnum):
    """The kinds of fact. Told by a runner, heard from the forge, noticed by the clock, asked by an operator."""

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


TOLD = frozenset(
    {FactKind.STARTED, FactKind.BEAT, FactKind.GIVEN_BACK, FactKind.FINISHED, FactKind.FAILED, FactKind.LIMIT_REACHED}
)


class OutboxKind(StrEnum):
    """What we can owe the outside. Written with the event, paid later, harmless to pay twice."""

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
    """Something that happened. `run` is the fence of whoever tells it; `key` names it, so that hearing
    it again changes nothing; `detail` is JSON."""

    what: FactKind
    detail: Mapping[str, Any] = field(default_factory=dict)
    run: int | None = None
    key: str | None = None


REQUESTED_FIELDS = (
    "task_id", "mode", "priority", "requirement_set_id", "forge", "repository_id", "issue_number", "branch",
    "wants_pull", "max_retries",
)  # fmt: skip

Guard = Callable[[Task, Fact], bool]
Change = Callable[[Task, Fact, datetime], dict[str, Any]]


@dataclass(frozen=True)
class Transition:
    """One row: in one of `source`, `fact` leads to `to` if `only_if` holds; then `also` changes the rest of
    the row and `owes` says what we owe. A quiet move says what is known already: it writes no event."""

    source: frozenset[State]
    fact: FactKind
    to: State | None
    only_if: Guard | None = None
    owes: tuple[OutboxKind, ...] = ()
    also: tuple[Change, ...] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Decision:
    """What a fact does to a task: the row after it, and what is owed. `move.quiet` means nothing to write."""

    task: Task
    move: Transition

    @property
    def owes(self) -> tuple[OutboxKind, ...]:
        return self.move.owes


def begin(id_: int, asked: Mapping[str, Any], at: datetime) -> Task:
    """The task that a REQUESTED fact makes. `asked` is JSON with the names of Task's fields."""
    if "capset_id" in asked:  # the name in events written before schema 0014
        asked = {**asked, "requirement_set_id": asked["capset_id"]}
    given = {name: asked[name] for name in REQUESTED_FIELDS if name in asked}
    given |= {"mode": Mode(asked["mode"]), "priority": Priority(asked["priority"])}
    return Task(id=id_, state=State.CREATED, version=1, ready=True, created_at=at, moved_at=at, **given)


def decide(task: Task, fact: Fact, at: datetime) -> Decision:
    """The task as it is after `fact` at the moment `at`, or Refused: `stale` when an older run speaks or its
    silence is noticed, `invalid` when no row of the table fits."""
    fenced = fact.what in TOLD or (fact.what is FactKind.EXPIRED and fact.run is not None)
    if fenced and fact.run != task.run:
        raise Refused(Kind.STALE, f"{task.task_id}: run {fact.run} is over; the newest run is {task.run}.")
    for move in TRANSITIONS:
        if task.state in move.source and move.fact is fact.what and (not move.only_if or move.only_if(task, fact)):
            return Decision(task if move.quiet else _after(task, fact, at, move), move)
    raise Refused(Kind.INVALID, refusal(task, fact.what))


def refusal(task: Task, what: FactKind) -> str:
    """Why `what` moves nothing now, and when it would."""
    states = sorted({state for move in TRANSITIONS if move.fact is what for state in move.source})
    when = f"that is possible when it is {' or '.join(states)}" if states else "nothing takes it"
    return f"{task.task_id} is {task.state}: '{what}' has no effect now; {when}."


def _after(task: Task, fact: Fact, at: datetime, move: Transition) -> Task:
    to = move.to or task.state
    ended = (task.completed_at or at) if to in ENDS else None
    changes: dict[str, Any] = {
        "version": task.version + 1, "state": to, "moved_at": at, "completed_at": ended, "ready": False, "due_at": None,
    }  # fmt: skip
    for change in move.also:
        changes |= change(task, fact, at)
    return replace(task, **changes)


# --- guards: what a row may ask of the task and the fact -------------------------------------------------


def wants_a_pull_and_has_one_to_open(task: Task, fact: Fact) -> bool:
    return task.wants_pull and has_news(task, fact)


def has_news(task: Task, fact: Fact) -> bool:
    """The forge holds a commit of this run that was not offered for review before."""
    return bool(fact.detail.get("pushed")) and fact.detail.get("head") not in (None, task.head)


def wants_no_pull(task: Task, fact: Fact) -> bool:
    """Then the CLI's own word is all there is, and it must have been understood."""
    return not task.wants_pull and not fact.detail.get("unreadable")


def answers_the_review(task: Task, fact: Fact) -> bool:
    """A round of review in which the agent changed nothing and said why: the reviewer decides."""
    return bool(task.pr_number and task.review_count) and says_why_nothing_changed(task, fact)


def says_why_nothing_changed(_: Task, fact: Fact) -> bool:
    """Nothing was pushed, and a line of the agent's last words says so and why, as its prompt asks it to."""
    done = fact.detail.get("pushed") or fact.detail.get("commits") or fact.detail.get("unreadable")
    return not done and bool(NOTHING_TO_CHANGE.search(str(fact.detail.get("summary") or "")))


def may_try_again(task: Task, fact: Fact) -> bool:
    return bool(fact.detail.get("transient")) and task.retries_left


def has_retries_left(task: Task, _: Fact) -> bool:
    return task.retries_left


def was_never_confirmed_too_often(task: Task, _: Fact) -> bool:
    return task.unconfirmed + 1 >= UNCONFIRMED_LIMIT


def is_news_of_a_pull(task: Task, fact: Fact) -> bool:
    """The first we hear of a pull request, or the one that this very run delivered to."""
    return task.pr_number is None or fact.run == task.run


def is_opened_while_a_host_works(task: Task, fact: Fact) -> bool:
    """A run on a host ends by its result, and what it pushed is offered after that was looked at. Somebody else was
    quicker; an agent may open its own, and be done by that."""
    return task.host_id is not None and task.pr_number is None and fact.run is None


def has_reviews_left(task: Task, _: Fact) -> bool:
    return task.review_count < task.max_retries


def is_on_a_host(task: Task, _: Fact) -> bool:
    return task.host_id is not None and task.review_count < task.max_retries


def belongs_to_a_host(task: Task, _: Fact) -> bool:
    return task.host_id is not None


def is_its_pull(task: Task, fact: Fact) -> bool:
    return task.pr_number is not None and fact.detail.get("number") in (None, task.pr_number)


def ended_with_its_pull(task: Task, _: Fact) -> bool:
    return task.reason == "pull_closed"


def waits_for_the_clock(task: Task, _: Fact) -> bool:
    return not task.ready


def waits_for_its_budget(task: Task, _: Fact) -> bool:
    return task.reason == "budget"


def was_ended_by_the_forge(task: Task, _: Fact) -> bool:
    return task.reason in ("issue_closed", "label_removed")


# --- changes: what else a row does to the task -----------------------------------------------------------


def next_run(task: Task, _: Fact, at: datetime) -> dict[str, Any]:
    return {"run": task.run + 1, "assigned_at": at, "started_at": None, "reason": None}


def on_the_host(_: Task, fact: Fact, __: datetime) -> dict[str, Any]:
    return {"host_id": fact.detail["host_id"], "agent_id": None, "mode": Mode.SSH_CLI}


def with_the_agent(_: Task, fact: Fact, __: datetime) -> dict[str, Any]:
    return {"agent_id": fact.detail["agent_id"], "host_id": None, "mode": Mode.HTTP_PULL}


def confirmed(_: Task, __: Fact, at: datetime) -> dict[str, Any]:
    return {"started_at": at, "unconfirmed": 0}


def count_unconfirmed(task: Task, _: Fact, __: datetime) -> dict[str, Any]:
    return {"unconfirmed": task.unconfirmed + 1, "reason": None}


def ready(_: Task, __: Fact, ___: datetime) -> dict[str, Any]:
    return {"ready": True}


def afresh(_: Task, __: Fact, ___: datetime) -> dict[str, Any]:
    """A person asked: the attempts of before do not count against this one."""
    return {"retry_count": 0, "review_count": 0, "unconfirmed": 0, "reason": None}


def count_retry(task: Task, fact: Fact, _: datetime) -> dict[str, Any]:
    return {"retry_count": task.retry_count + 1, "reason": fact.detail.get("reason", task.reason)}


def after_back_off(task: Task, _: Fact, at: datetime) -> dict[str, Any]:
    return {"due_at": at + min(FIRST_BACK_OFF * 2**task.retry_count, LONGEST_BACK_OFF)}


def due_at_once(_: Task, __: Fact, at: datetime) -> dict[str, Any]:
    return {"due_at": at}


def due_at_reset(_: Task, fact: Fact, __: datetime) -> dict[str, Any]:
    until = fact.detail.get("until")
    return {"due_at": datetime.fromisoformat(until) if until else None}


def keep_session(task: Task, fact: Fact, _: datetime) -> dict[str, Any]:
    return {"session": fact.detail.get("session") or task.session}


def know_pull(task: Task, fact: Fact, at: datetime) -> dict[str, Any]:
    return {**know_of_pull(task, fact, at), **know_head(task, fact, at)}


def know_of_pull(task: Task, fact: Fact, _: datetime) -> dict[str, Any]:
    told = fact.detail
    return {
        "pr_number": told.get("number", task.pr_number),
        "pr_title": told.get("title", task.pr_title),
        "pr_url": told.get("url", task.pr_url),
    }


def know_head(task: Task, fact: Fact, _: datetime) -> dict[str, Any]:
    return {"head": fact.detail.get("head", task.head)}


def count_review(task: Task, _: Fact, __: datetime) -> dict[str, Any]:
    return {"review_count": task.review_count + 1}


def because(reason: str) -> Change:
    """The end has this reason, or the more exact one that the fact brings."""

    def reason_of(_: Task, fact: Fact, __: datetime) -> dict[str, Any]:
        return {"reason": fact.detail.get("reason", reason)}

    reason_of.__name__ = f"because_{reason}"
    return reason_of


def as_it_was(task: Task, _: Fact, __: datetime) -> dict[str, Any]:
    """The task goes on as if nothing had been said: it may be taken, or waits for the clock, as before."""
    return {"ready": task.ready, "due_at": task.due_at}


def by_its_labels(_: Task, fact: Fact, __: datetime) -> dict[str, Any]:
    told = fact.detail
    requirements = told["requirement_set_id"] if "requirement_set_id" in told else told["capset_id"]  # before 0014
    return {"requirement_set_id": requirements, "priority": Priority(told["priority"])}


def without_reason(_: Task, __: Fact, ___: datetime) -> dict[str, Any]:
    return {"reason": None}


# --- the table -------------------------------------------------------------------------------------------

_CREATED, _ASSIGNED = frozenset({State.CREATED}), frozenset({State.ASSIGNED})
_RUNNING, _REVIEW = frozenset({State.RUNNING}), frozenset({State.REVIEW_PENDING})
_PARKED, _LOST = frozenset({State.PARKED}), frozenset({State.AGENT_LOST})
_CANCELLED, _COMPLETED = frozenset({State.CANCELLED}), frozenset({State.COMPLETED})
_FAILED, _FAILED_OR_CANCELLED = frozenset({State.FAILED}), frozenset({State.FAILED, State.CANCELLED})
_ENDED = frozenset({State.FAILED, State.AGENT_LOST, State.CANCELLED})
_ALL, _WAITING = frozenset(State), frozenset({State.CREATED, State.PARKED})
_BEGIN = (OutboxKind.LABEL, OutboxKind.ASSIGN)
_TELL = (OutboxKind.COMMENT, OutboxKind.LABEL, OutboxKind.STATUS)
_PROVE = (OutboxKind.STOP, OutboxKind.RECEIPT, *_TELL)

OWED_AT_FIRST = (
    OutboxKind.COMMENT,
    OutboxKind.LABEL,
)  # acknowledges the request at once

TRANSITIONS: tuple[Transition, ...] = (
    Transition(_CREATED, FactKind.PLACED, State.ASSIGNED, None, (OutboxKind.START, *_BEGIN), (next_run, on_the_host)),
    Transition(_CREATED, FactKind.CLAIMED, State.ASSIGNED, None, _BEGIN, (next_run, with_the_agent)),
    Transition(_CREATED, FactKind.DUE, State.CREATED, also=(ready,)),
    Transition(_ASSIGNED, FactKind.STARTED, State.RUNNING, owes=(OutboxKind.COMMENT,), also=(confirmed,)),
    Transition(_RUNNING, FactKind.STARTED, State.RUNNING, quiet=True),
    Transition(WORKING, FactKind.BEAT, None, quiet=True),
    Transition(_ASSIGNED, FactKind.EXPIRED, State.FAILED, was_never_confirmed_too_often,
         (OutboxKind.STOP, *_TELL), (because("never_confirmed"),)),
    Transition(_ASSIGNED, FactKind.EXPIRED, State.CREATED, None, (OutboxKind.STOP, *_TELL), (count_unconfirmed, ready)),
    Transition(WORKING, FactKind.GIVEN_BACK, State.CREATED, None, _TELL, (ready, without_reason)),
    Transition(_RUNNING, FactKind.EXPIRED, State.AGENT_LOST, None, (OutboxKind.STOP,), (because("silent"), due_at_once)),
    Transition(_LOST, FactKind.DUE, State.CREATED, has_retries_left, _TELL, (count_retry, ready)),
    Transition(_LOST, FactKind.DUE, State.FAILED, None, _TELL, ()),
    Transition(WORKING, FactKind.PULL_OPENED, None, is_opened_while_a_host_works, (), (know_of_pull, as_it_was)),
    Transition(WORKING, FactKind.PULL_OPENED, State.REVIEW_PENDING, is_news_of_a_pull,
         (*_TELL, OutboxKind.ASK_REVIEW), (know_pull,)),
    Transition(_REVIEW, FactKind.PULL_OPENED, State.REVIEW_PENDING, quiet=True),
    Transition(WORKING, FactKind.FINISHED, State.RUNNING, wants_a_pull_and_has_one_to_open,
         (OutboxKind.OPEN_PULL,), (keep_session,)),
    Transition(WORKING, FactKind.FINISHED, State.COMPLETED, wants_no_pull,
         (OutboxKind.RECEIPT, *_TELL), (keep_session, without_reason)),
    Transition(WORKING, FactKind.FINISHED, State.REVIEW_PENDING, answers_the_review,
         (OutboxKind.ANSWER, *_TELL), (keep_session, because("nothing_to_change"))),
    Transition(WORKING, FactKind.FINISHED, State.FAILED, says_why_nothing_changed,
         _TELL, (keep_session, because("nothing_to_change"))),
    Transition(WORKING, FactKind.FINISHED, State.FAILED, None, _TELL, (keep_session, because("no_delivery"))),
    Transition(_REVIEW, FactKind.FINISHED, State.REVIEW_PENDING, None, (), (keep_session,)),
    Transition(WORKING, FactKind.FAILED, State.CREATED, may_try_again,
         _TELL, (keep_session, count_retry, after_back_off)),
    Transition(WORKING, FactKind.FAILED, State.FAILED, None, _TELL, (keep_session, because("failed"))),
    Transition(WORKING, FactKind.LIMIT_REACHED, State.PARKED, None, _TELL, (keep_session, because("limit"), due_at_reset)),
    Transition(_PARKED, FactKind.DUE, State.CREATED, None, _TELL, (ready, without_reason)),
    Transition(_REVIEW, FactKind.CHANGES_REQUESTED, State.RUNNING, is_on_a_host,
         (OutboxKind.START, *_TELL), (next_run, count_review)),
    Transition(_REVIEW, FactKind.CHANGES_REQUESTED, State.RUNNING, has_reviews_left, _TELL, (next_run, count_review)),
    Transition(_REVIEW, FactKind.CHANGES_REQUESTED, State.FAILED, None,
         (OutboxKind.ANSWER, *_TELL), (because("review_loop_limit"),)),
    Transition(_REVIEW, FactKind.CONFLICTED, State.RUNNING, belongs_to_a_host, (OutboxKind.START, *_TELL), (next_run,)),
    Transition(_REVIEW, FactKind.CONFLICTED, State.RUNNING, None, _TELL, (next_run,)),
    Transition(_REVIEW, FactKind.PULL_NEWS, None, None, (OutboxKind.COMMENT, OutboxKind.STATUS), (know_head,)),
    Transition(_COMPLETED, FactKind.PULL_MERGED, State.COMPLETED, quiet=True),
    Transition(_ALL, FactKind.PULL_MERGED, State.COMPLETED, None, _PROVE, (know_pull, without_reason)),
    Transition(LIVE, FactKind.PULL_CLOSED, State.CANCELLED, is_its_pull, (OutboxKind.STOP, *_TELL), (because("pull_closed"),)),
    Transition(_FAILED_OR_CANCELLED, FactKind.PULL_CLOSED, None, is_its_pull),
    Transition(_CANCELLED, FactKind.PULL_REOPENED, State.REVIEW_PENDING, ended_with_its_pull, _TELL, (know_pull, without_reason)),
    Transition(LIVE | _LOST, FactKind.ISSUE_CLOSED, State.CANCELLED, None, (OutboxKind.STOP, *_TELL), (because("issue_closed"),)),
    Transition(LIVE | _LOST, FactKind.LABEL_REMOVED, State.CANCELLED, None, (OutboxKind.STOP, *_TELL), (because("label_removed"),)),
    Transition(LIVE | _LOST, FactKind.CANCEL, State.CANCELLED, None, (OutboxKind.STOP, *_TELL), (because("cancelled"),)),
    Transition(_ALL - _COMPLETED, FactKind.ISSUE_EDITED, None, None, (OutboxKind.NOTE,), (as_it_was,)),
    Transition(_ALL - _COMPLETED, FactKind.TEXT_ACCEPTED, None, None, (OutboxKind.COMMENT,), (as_it_was,)),
    Transition(_WAITING, FactKind.REROUTED, None, None, (), (by_its_labels, as_it_was)),
    Transition(_FAILED, FactKind.ISSUE_WANTED, State.CREATED, None, (OutboxKind.STOP, *_TELL), (afresh, ready)),
    Transition(_CANCELLED, FactKind.ISSUE_WANTED, State.CREATED, was_ended_by_the_forge,
         (OutboxKind.STOP, *_TELL), (afresh, ready)),
    Transition(_ENDED, FactKind.RETRY, State.CREATED, None, (OutboxKind.STOP, *_TELL), (afresh, ready)),
    Transition(_CREATED, FactKind.RETRY, State.CREATED, waits_for_the_clock, (), (ready,)),
    Transition(_PARKED, FactKind.RETRY, State.CREATED, None, _TELL, (ready, without_reason)),
    Transition(_PARKED, FactKind.RAISED, State.CREATED, waits_for_its_budget, _TELL, (ready, without_reason)),
    Transition(_ALL, FactKind.RAISED, None, quiet=True),
)  # fmt: skip


def takes(state: State, what: FactKind) -> Iterable[Transition]:
    """The rows that could take `what` in `state`, in the order in which they are tried."""
    return (move for move in TRANSITIONS if state in move.source and move.fact is what)

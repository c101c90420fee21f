"""Leases of agents: grants them with tasks, renews them at heartbeats, and says when an agent must stop."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from app.domain import forge_messages, matching
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Run, run_name
from app.domain.task import LIVE, WORKING, Mode, State, Task
from app.ports import Fleet
from app.services.agents.task_updates import Feedback, TaskUpdate
from app.services.dispatch import budgets, credentials, git_flow, prompts, start_order
from app.services.runs import report
from app.store import agents, dequeue, runs, task_details, tasks, views
from app.store.engine import reading_connection
from app.store.tables import Row

ShownTask = dict[str, object]  # a task with its lease, as the API shows it
LOST = ("expired", "given_back")  # ends of a run that was taken from its agent
GONE = "The agent {!r} is not registered: register it first."


class UnknownAgent(Refused):
    """The token is not the agent's, or the agent left or was revoked. The API finds out which."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(Kind.UNKNOWN, GONE.format(agent_id))


@dataclass(frozen=True)
class ClaimRequest:
    """A dequeue of an agent."""

    agent_id: str
    token_hash: bytes
    capabilities: tuple[str, ...] | None = None  # those to use; None: all that it registered with
    most: int = 1  # tasks
    key: str | None = None  # the same key gets the same answer again

    def at(self, at: datetime) -> dequeue.Search:
        words = None if self.capabilities is None else sorted({matching.capability(one) for one in self.capabilities})
        return dequeue.Search(self.agent_id, self.token_hash, words, self.most, self.key, at)


class HeldLease(NamedTuple):
    """A task and a lease, as an agent names them."""

    task_id: str
    lease: int


@dataclass(frozen=True)
class Held:
    """A task and the run by which an agent holds it."""

    task: Task
    run: Run


def claim(fleet: Fleet, request: ClaimRequest, last: bool = True) -> list[ShownTask] | None:
    """Up to `most` tasks for the agent, each with its lease; the same tasks again for a key that got some before.

    If nothing matches or its slots are full: an empty list on the `last` try, None before. Nothing is saved then, and
    the key may be used again. Raises UnknownAgent, Refused.
    """
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        search = request.at(at)
        found = dequeue.search(conn, search)
        if found.agent is None:
            raise UnknownAgent(request.agent_id)
        if found.answer is not None:
            return found.answer
        off = credentials.switched_off(conn) if found.some_are_off else []
        if off:
            found = dequeue.search(conn, search, off)
        answer = _assigned(conn, found, request) or _take(conn, fleet, found, search, off)
        if request.key and answer:
            agents.keep_answer(conn, request.agent_id, request.key, answer, at)
    return answer or (None if not last else [])


def forget_answers(fleet: Fleet) -> int:
    """Delete kept answers to dequeues that can no longer be asked for; returns how many. Two at once do no harm."""
    with fleet.engine.begin() as conn:
        return agents.forget_answers(conn, fleet.clock())


def heartbeat(fleet: Fleet, agent_id: str, named: Set[HeldLease] | None) -> list[TaskUpdate]:
    """Renew the leases that an agent names, end runs whose budget is used up, and return an update for each task.

    `named` are the leases that the agent holds in its own view; None: it does not say. Raises Refused(unknown).
    """
    at, spent = fleet.clock(), _end_over_budget(fleet, agent_id)
    with fleet.engine.begin() as conn:
        agent = agents.lock(conn, agent_id)
        if agent is None or agent.gone_at:
            raise Refused(Kind.UNKNOWN, GONE.format(agent_id))
        agents.mark_seen(conn, agent_id, at)
        open_ = [Held(tasks.load(conn, run.task_pk), run) for run in runs.open_of_agent(conn, agent_id)]
        updates = [_renew(conn, fleet, one, named, at) for one in open_]
        answered = {HeldLease(one.task_id, one.lease) for one in updates}
        return updates + [_update_of_lost(conn, agent_id, one) for one in sorted((spent | (named or set())) - answered)]


def owned(conn: Connection, agent_id: str, task_id: str, lease: int | None) -> Held:
    """The task and the run that an agent reports about.

    Raises Refused: `unknown`, `invalid` (a task of hosts), `forbidden` (another agent's), `stale` (the lease is over).
    """
    found, task = runs.of_task_id(conn, task_id)
    mine = [run for run in found if run.agent_id == agent_id]
    if not mine and task.mode is Mode.SSH_CLI:
        raise Refused(Kind.INVALID, f"{task_id} is worked on by hosts (ssh_cli), not by agents.")
    if not mine:
        raise Refused(Kind.FORBIDDEN, f"{task_id} is not a task of agent {agent_id!r}.")
    run = next((run for run in mine if run.number == (lease or task.run)), None)
    if run is None or run.number != task.run or run.end in LOST:
        raise Refused(Kind.STALE, f"{task_id}: your lease {lease or mine[-1].number} is over; ask for other work.")
    return Held(task, run)


def held(conn: Connection, task_pk: int, number: int) -> Held:
    """A task and one of its runs, as stored now."""
    run, task = runs.with_task(conn, task_pk, number)
    if run is None:
        raise LookupError(f"task {task_pk} has no run {number}")
    return Held(task, run)


def stops(held: Held) -> bool:
    """True if the agent must stop working: the task or its run has ended."""
    return held.task.state not in LIVE or held.run.ended_at is not None


def lease_end(fleet: Fleet, at: datetime) -> datetime:
    """The end of a lease that is renewed at `at`."""
    return at + timedelta(seconds=fleet.config.offline_after_secs)


# --- dequeue ----------------------------------------------------------------------------------------------


def _assigned(conn: Connection, found: dequeue.Found, request: ClaimRequest) -> list[ShownTask]:
    """Tasks that an operator assigned to the agent and that it has not received yet."""
    mine = found.assigned[: request.most]
    for run in mine:
        runs.acknowledge(conn, run)
    rows = dequeue.with_texts(conn, mine) if mine else []
    return [_task_as_json(conn, row, tasks.task_of(row), row["deadline"]) for row in rows]


def _take(
    conn: Connection, fleet: Fleet, found: dequeue.Found, search: dequeue.Search, off: Sequence[str]
) -> list[ShownTask]:
    """Take the first tasks of the agent's queue."""
    agent = found.agent or {}
    can = _capabilities(agent["capabilities"], search.words)
    room = min(search.most, agent["max_concurrency"] - found.open)
    rows = list(found.heads)
    if len(rows) < room:
        rows += dequeue.search_deeper(conn, can, room - len(rows), [row["id"] for row in rows], off)
    at = fleet.clock()  # after the open runs were counted: in the history, no slot is used twice
    until = at + timedelta(seconds=fleet.config.confirm_secs)
    detail = {"agent_id": agent["agent_id"], "agent_type": agent["agent_type"], "until": until.isoformat()}
    fact = Fact(FactKind.CLAIMED, detail)
    moved = tasks.record_locked(conn, [(tasks.task_of(row), fact) for row in rows], at) if rows else []
    return [_task_as_json(conn, row, task, until) for row, task in zip(rows, moved, strict=True)]


def _capabilities(known: list[str], asked: list[str] | None) -> list[str]:
    unknown = sorted(set(asked or ()) - set(known))
    if unknown:
        raise Refused(Kind.INVALID, f"capabilities: {', '.join(unknown)}: not among those it registered with.")
    return known if asked is None else asked


def _task_as_json(conn: Connection, row: Row, task: Task, deadline: datetime | None) -> ShownTask:
    """A task as the API shows it, with its lease and all that is needed to work on it.

    The repository has its present name. A review that was not answered yet is in the prompt.
    """
    details = task_details.parse_row(row)
    _, text = prompts.prompt_of(conn, task, details, resume=False)
    author = {"author_name": start_order.AUTHOR, "author_email": start_order.AUTHOR_EMAIL}
    name = run_name(task.id, task.task_id, task.run)
    return views.shown({**row, **tasks.row_of(task), "seen_at": None, "active_at": None}) | {
        "prompt": row["prompt"] | {"text": text},
        "lease": task.run,
        "lease_expires_at": views.moment(deadline),
        "confirm_by": views.moment(deadline),
        "timeout_secs": details.timeout_secs,
        "checks": list(details.validation),
        "push": git_flow.push_of(task, details),
        "commit": {"message": forge_messages.commit_message(details.title, task.issue_number, name), **author},
    }


# --- heartbeat ---------------------------------------------------------------------------------------------


def _end_over_budget(fleet: Fleet, agent_id: str) -> set[HeldLease]:
    """End the agent's runs whose budget is used up; returns their leases."""
    with reading_connection(fleet.engine) as conn:
        going = runs.open_of_agent(conn, agent_id) if budgets.any_declared(conn) else []
        ours = [Held(tasks.load(conn, run.task_pk), run) for run in going if run.started_at]
    spent = [(held, why) for held in ours if (why := budgets.over_budget(fleet, held.run))]
    for held, why in spent:
        report.end_over_budget(fleet, held.run, why)
    return {HeldLease(held.task.task_id, held.run.number) for held, _ in spent}


def _renew(conn: Connection, fleet: Fleet, held: Held, named: Set[HeldLease] | None, at: datetime) -> TaskUpdate:
    """Renew one run, unless it must stop. A round of review starts when the agent names its lease."""
    task, run = held.task, held.run
    is_current = run.number == task.run and task.state in WORKING | {State.REVIEW_PENDING}
    is_named = named is not None and HeldLease(task.task_id, run.number) in named
    deadline = run.deadline
    if not is_current:
        runs.end(conn, run.id, at, "stopped")
    elif task.state is not State.ASSIGNED and (is_named or (named is None and run.started_at)):
        deadline = lease_end(fleet, at)
        (runs.renew_lease if run.started_at else runs.mark_started)(conn, run.id, at, deadline)
    return TaskUpdate(
        task.task_id,
        run.number,
        task.state,
        stop=not is_current,
        lease_expires_at=deadline if is_current else None,
        feedback=feedback(conn, held) if is_current else None,
    )


def feedback(conn: Connection, held: Held) -> Feedback | None:
    """The review that this run must answer, as the API shows it, with a complete prompt; None if there is none."""
    task = held.task
    if task.state is not State.RUNNING or task.pr_number is None or stops(held):
        return None
    asked = prompts.review_to_answer(conn, task)
    if asked is None:
        return None
    details = task_details.get(conn, task.id)
    _, text = prompts.prompt_of(conn, task, details)
    return {
        "kind": FactKind.CHANGES_REQUESTED,
        "by": asked["by"],
        "text": asked["text"],
        "comments": [{"path": path, "line": line, "text": words} for path, line, words in asked["comments"]],
        "prompt": text,
        "push": git_flow.push_of(task, details),
    }


def _update_of_lost(conn: Connection, agent_id: str, named: HeldLease) -> TaskUpdate:
    """The update for a lease that the agent names and no longer holds. It has the task's status if it ever held it."""
    status, stop = None, True
    try:
        task = tasks.find(conn, named.task_id)
        mine = {run.number: run for run in runs.of_task(conn, task.id) if run.agent_id == agent_id}
        status = task.state if mine else None
        run = mine.get(named.lease)
        stop = run is None or named.lease != task.run or not _may_come_back(task, run)
    except Refused:
        pass
    return TaskUpdate(named.task_id, named.lease, status, stop)


def _may_come_back(task: Task, run: Run) -> bool:
    """True if the work was delivered: its pull request waits for a review, or is about to be opened."""
    return task.state is State.REVIEW_PENDING or (task.state is State.RUNNING and run.end == "finished")

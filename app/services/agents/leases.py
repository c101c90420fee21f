"""The right to work on a task: taken by an agent, confirmed, renewed by beating, told to stop, given back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app.domain import forge_messages, matching
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Run, run_name
from app.domain.task import LIVE, WORKING, Mode, State, Task
from app.ports import Fleet
from app.services.dispatch import budgets, credentials, git_flow, prompts, start_order
from app.services.runs import report
from app.store import agents, dequeue, runs, tasks, views
from app.store.engine import reading

Json = dict[str, Any]
LOST = ("expired", "given_back")  # how a run ends that was taken from its agent
GONE = "The agent {!r} is not registered: register it first."


class Stranger(Refused):
    """Whoever asks is no agent that may: who it is then, and why not, is for the door to say."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(Kind.UNKNOWN, GONE.format(agent_id))


@dataclass(frozen=True)
class Wish:
    """What an agent asks for: who it is by its token, with which of its capabilities (None: all), how many tasks at
    most, and the key by which it can ask for the same answer again."""

    agent_id: str
    token_hash: bytes
    capabilities: tuple[str, ...] | None = None
    most: int = 1
    key: str | None = None

    def at(self, at: datetime) -> dequeue.Asking:
        words = None if self.capabilities is None else sorted({matching.capability(one) for one in self.capabilities})
        return dequeue.Asking(self.agent_id, self.token_hash, words, self.most, self.key, at)


@dataclass(frozen=True)
class Held:
    """A task and the run by which an agent holds it."""

    task: Task
    run: Run


def claim(fleet: Fleet, wish: Wish, last: bool = True) -> list[Json] | None:
    """Up to `most` tasks for the agent, each with its lease; the same tasks again for a key under which it got some.

    When nothing matches or its slots are full: an empty list on the `last` try, None before. Nothing is kept then, and
    the same key asks again. Raises Stranger, Refused.
    """
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        asking = wish.at(at)
        found = dequeue.ask(conn, asking)
        if found.agent is None:
            raise Stranger(wish.agent_id)
        if found.answer is not None:
            return found.answer
        off = credentials.switched_off(conn) if found.some_are_off else []
        if off:
            found = dequeue.ask(conn, asking, off)
        answer = _unheard(conn, found, wish) or _taken(conn, fleet, found, asking, off)
        if wish.key and answer:
            agents.keep_answer(conn, wish.agent_id, wish.key, answer, at)
    return answer or (None if not last else [])


def forget_answers(fleet: Fleet) -> int:
    """Delete kept answers to dequeues that can no longer be asked for; returns how many. Two at once do no harm."""
    with fleet.engine.begin() as conn:
        return agents.forget_answers(conn, fleet.clock())


def beat(fleet: Fleet, agent_id: str, told: Iterable[Mapping[str, Any]] | None) -> list[Json]:
    """The agent lives: end what has used up its budget, renew what it works on, and tell it of each task of its what
    has become of it. `told` are the tasks it believes to hold, `{task_id, lease}`; None when it does not say. Raises
    Refused(unknown)."""
    at, believed = fleet.clock(), None if told is None else {(one["task_id"], one["lease"]) for one in told}
    spent = _spent(fleet, agent_id)
    with fleet.engine.begin() as conn:
        agent = agents.lock(conn, agent_id)
        if agent is None or agent.gone_at:
            raise Refused(Kind.UNKNOWN, GONE.format(agent_id))
        agents.mark_seen(conn, agent_id, at)
        open_ = [Held(tasks.load(conn, run.task_pk), run) for run in runs.open_of_agent(conn, agent_id)]
        news = [_renew(conn, fleet, one, believed, at) for one in open_]
        spoken_of = {(one["task_id"], one["lease"]) for one in news}
        return news + [_over(conn, agent_id, *one) for one in sorted((spent | (believed or set())) - spoken_of)]


def owned(conn: Connection, agent_id: str, task_id: str, lease: int | None) -> Held:
    """The task and the run that an agent speaks of. Raises Refused: `unknown`, `invalid` (not for agents), `forbidden`
    (another's), `stale` (its lease is over)."""
    all_of_them, task = runs.of_task_id(conn, task_id)
    mine = [run for run in all_of_them if run.agent_id == agent_id]
    if not mine and task.mode is Mode.SSH_CLI:
        raise Refused(Kind.INVALID, f"{task_id} is worked on by hosts (ssh_cli), not by agents.")
    if not mine:
        raise Refused(Kind.FORBIDDEN, f"{task_id} is not a task of agent {agent_id!r}.")
    run = next((run for run in mine if run.number == (lease or task.run)), None)
    if run is None or run.number != task.run or run.end in LOST:
        raise Refused(Kind.STALE, f"{task_id}: your lease {lease or mine[-1].number} is over; ask for other work.")
    return Held(task, run)


def held(conn: Connection, task_pk: int, number: int) -> Held:
    """A task and one of its runs, as they are now."""
    run, task = runs.with_task(conn, task_pk, number)
    if run is None:
        raise LookupError(f"task {task_pk} has no run {number}")
    return Held(task, run)


def stops(held: Held) -> bool:
    """Whether the agent shall stop working: the task or its run has ended."""
    return held.task.state not in LIVE or held.run.ended_at is not None


def until(fleet: Fleet, at: datetime) -> datetime:
    """The end of a lease that is renewed at `at`."""
    return at + timedelta(seconds=fleet.config.offline_after_secs)


# --- taking ----------------------------------------------------------------------------------------------


def _unheard(conn: Connection, found: dequeue.Found, wish: Wish) -> list[Json]:
    """What the operator assigned to the agent and it has not heard of yet."""
    mine = found.unheard[: wish.most]
    for run in mine:
        runs.acknowledge(conn, run)
    rows = dequeue.with_texts(conn, mine) if mine else []
    return [_handed_over(conn, row, tasks.task_of(row), row["deadline"]) for row in rows]


def _taken(
    conn: Connection, fleet: Fleet, found: dequeue.Found, asking: dequeue.Asking, off: Sequence[str]
) -> list[Json]:
    """The head of its queue, made its own."""
    agent = found.agent or {}
    can = _capabilities(agent["capabilities"], asking.words)
    room = min(asking.most, agent["max_concurrency"] - found.open)
    rows = list(found.heads)
    if len(rows) < room:
        rows += dequeue.further(conn, can, room - len(rows), [row["id"] for row in rows], off)
    at = fleet.clock()  # after the open runs were counted: whoever reads the history sees no slot used twice
    until = at + timedelta(seconds=fleet.config.confirm_secs)
    detail = {"agent_id": agent["agent_id"], "agent_type": agent["agent_type"], "until": until.isoformat()}
    fact = Fact(FactKind.CLAIMED, detail)
    moved = tasks.record_locked(conn, [(tasks.task_of(row), fact) for row in rows], at) if rows else []
    return [_handed_over(conn, row, task, until) for row, task in zip(rows, moved, strict=True)]


def _capabilities(known: list[str], asked: list[str] | None) -> list[str]:
    unknown = sorted(set(asked or ()) - set(known))
    if unknown:
        raise Refused(Kind.INVALID, f"capabilities: {', '.join(unknown)}: not among those it registered with.")
    return known if asked is None else asked


def _handed_over(conn: Connection, row: Json, task: Task, deadline: datetime | None) -> Json:
    """A task as the contract shows it, from its row with its texts, with the lease and all that it takes to work on it.
    The repository is named as it is now; a review that was not answered yet is in the prompt."""
    _, text = prompts.prompt_of(conn, task, row, resume=False)
    author = {"author_name": start_order.AUTHOR, "author_email": start_order.AUTHOR_EMAIL}
    name = run_name(task.id, task.task_id, task.run)
    return views.shown(row | tasks.row_of(task) | {"seen_at": None, "active_at": None}) | {
        "prompt": row["prompt"] | {"text": text},
        "lease": task.run,
        "lease_expires_at": views.moment(deadline),
        "confirm_by": views.moment(deadline),
        "timeout_secs": row["timeout_secs"],
        "checks": list(row["validation"]),
        "push": git_flow.push_of(task, row),
        "commit": {"message": forge_messages.commit_message(row["title"], task.issue_number, name), **author},
    }


# --- beating ---------------------------------------------------------------------------------------------


def _spent(fleet: Fleet, agent_id: str) -> set[tuple[str, int]]:
    """End the agent's runs whose budget is used up: which, by task and lease."""
    with reading(fleet.engine) as conn:
        going = runs.open_of_agent(conn, agent_id) if budgets.there_are(conn) else []
        ours = [Held(tasks.load(conn, run.task_pk), run) for run in going if run.started_at]
    spent = [(held, why) for held in ours if (why := budgets.over_budget(fleet, held.run))]
    for held, why in spent:
        report.out_of_budget(fleet, held.run, why)
    return {(held.task.task_id, held.run.number) for held, _ in spent}


def _renew(conn: Connection, fleet: Fleet, held: Held, believed: set[tuple[str, int]] | None, at: datetime) -> Json:
    """One run of the agent's: renewed while it is wanted. A round of review begins when the agent names its lease."""
    task, run = held.task, held.run
    current = run.number == task.run and task.state in WORKING | {State.REVIEW_PENDING}
    named = believed is not None and (task.task_id, run.number) in believed
    deadline = run.deadline
    if not current:
        runs.ended(conn, run.id, at, "stopped")
    elif task.state is not State.ASSIGNED and (named or (believed is None and run.started_at)):
        deadline = until(fleet, at)
        (runs.beat if run.started_at else runs.started)(conn, run.id, at, deadline)
    news = {
        "task_id": task.task_id,
        "lease": run.number,
        "status": task.state,
        "stop": not current,
        "lease_expires_at": views.moment(deadline) if current else None,
    }
    return news | (feedback(conn, held) if current else {})


def feedback(conn: Connection, held: Held) -> Json:
    """`feedback`: the review that this run has to answer, with a text that is ready for a CLI. Empty if none."""
    task = held.task
    if task.state is not State.RUNNING or task.pr_number is None or stops(held):
        return {}
    asked = prompts.review_to_answer(conn, task)
    if asked is None:
        return {}
    brief = views.brief(conn, task.id)
    _, text = prompts.prompt_of(conn, task, brief)
    comments = [{"path": path, "line": line, "text": words} for path, line, words in asked["comments"]]
    told = {"kind": FactKind.CHANGES_REQUESTED, "by": asked["by"], "text": asked["text"]}
    return {"feedback": told | {"comments": comments, "prompt": text, "push": git_flow.push_of(task, brief)}}


def _over(conn: Connection, agent_id: str, task_id: str, lease: int) -> Json:
    """What to say of a task that the agent believes to hold and does not: how it stands if it was its own once."""
    status = None
    try:
        task = tasks.find(conn, task_id)
        mine = {run.number: run for run in runs.of_task(conn, task.id) if run.agent_id == agent_id}
        status = task.state if mine else None
        if lease in mine and lease == task.run and _may_come_back(task, mine[lease]):
            return {"task_id": task_id, "lease": lease, "status": status, "stop": False, "lease_expires_at": None}
    except Refused:
        pass
    return {"task_id": task_id, "lease": lease, "status": status, "stop": True, "lease_expires_at": None}


def _may_come_back(task: Task, run: Run) -> bool:
    """It is delivered: its pull request waits for a review, or is about to be opened."""
    return task.state is State.REVIEW_PENDING or (task.state is State.RUNNING and run.end == "finished")

"""The right to work on a task: taken by an agent, confirmed, renewed by beating, told to stop, given back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app.domain import matching, speech
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, What
from app.domain.task import LIVE, WORKING, Mode, State, Task
from app.ports import Fleet
from app.services import start
from app.store import agents, claims, places, runs, tasks, views
from app.store.tables import Row

Json = dict[str, Any]
LOST = ("expired", "given_back")  # how a run ends that was taken from its agent
GONE = "The agent {!r} is not registered: register it first."


@dataclass(frozen=True)
class Wish:
    """What an agent asks for: who it is, with which of its capabilities (None: all), how many tasks at most, and the
    key by which it can ask for the same answer again."""

    agent_id: str
    capabilities: tuple[str, ...] | None = None
    most: int = 1
    key: str | None = None


@dataclass(frozen=True)
class Held:
    """A task and the run by which an agent holds it."""

    task: Task
    run: Row


def claim(fleet: Fleet, wish: Wish, last: bool = True) -> list[Json] | None:
    """Up to `most` tasks for the agent, each with its lease; the same again for a key that was used before. An empty
    list when nothing matches or its slots are full; None where that is not the `last` word, and the key stays free.
    Raises Refused."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        agent = agents.hold(conn, wish.agent_id)
        if agent is None or agent["gone_at"]:
            raise Refused(Kind.UNKNOWN, GONE.format(wish.agent_id))
        given = agents.answer(conn, wish.agent_id, wish.key) if wish.key else None
        if given is not None:
            return given
        agents.seen(conn, wish.agent_id, at)
        answer = [_handed_over(conn, one) for one in _take(conn, fleet, agent, wish)]
        if wish.key and (answer or last):
            agents.keep_answer(conn, wish.agent_id, wish.key, answer, at)
    return answer or (None if not last else [])


def beat(fleet: Fleet, agent_id: str, told: Iterable[Mapping[str, Any]] | None) -> list[Json]:
    """The agent lives: renew what it works on, and tell it of each task of its what has become of it. `told` are the
    tasks it believes to hold, `{task_id, lease}`; None when it does not say. Raises Refused(unknown)."""
    at, believed = fleet.clock(), None if told is None else {(one["task_id"], one["lease"]) for one in told}
    with fleet.engine.begin() as conn:
        agent = agents.hold(conn, agent_id)
        if agent is None or agent["gone_at"]:
            raise Refused(Kind.UNKNOWN, GONE.format(agent_id))
        agents.seen(conn, agent_id, at)
        open_ = [Held(tasks.load(conn, run["task_pk"]), run) for run in runs.open_of_agent(conn, agent_id)]
        news = [_renew(conn, fleet, one, believed, at) for one in open_]
        spoken_of = {(one["task_id"], one["lease"]) for one in news}
        return news + [_over(conn, agent_id, *one) for one in sorted((believed or set()) - spoken_of)]


def owned(conn: Connection, agent_id: str, task_id: str, lease: int | None) -> Held:
    """The task and the run that an agent speaks of. Raises Refused: `unknown`, `invalid` (not for agents), `forbidden`
    (another's), `stale` (its lease is over)."""
    task = tasks.find(conn, task_id)
    mine = [run for run in runs.of_task(conn, task.id) if run["agent_id"] == agent_id]
    if not mine and task.mode is Mode.SSH_CLI:
        raise Refused(Kind.INVALID, f"{task_id} is worked on by hosts (ssh_cli), not by agents.")
    if not mine:
        raise Refused(Kind.FORBIDDEN, f"{task_id} is not a task of agent {agent_id!r}.")
    run = next((run for run in mine if run["number"] == (lease or task.run)), None)
    if run is None or run["number"] != task.run or run["end"] in LOST:
        raise Refused(Kind.STALE, f"{task_id}: your lease {lease or mine[-1]['number']} is over; ask for other work.")
    return Held(task, run)


def held(conn: Connection, task_pk: int, number: int) -> Held:
    """A task and one of its runs, as they are now."""
    run = runs.get(conn, task_pk, number)
    if run is None:
        raise LookupError(f"task {task_pk} has no run {number}")
    return Held(tasks.load(conn, task_pk), run)


def stops(held: Held) -> bool:
    """Whether the agent shall stop working: the task or its run has ended."""
    return held.task.state not in LIVE or held.run["ended_at"] is not None


def until(fleet: Fleet, at: datetime) -> datetime:
    """The end of a lease that is renewed at `at`."""
    return at + timedelta(seconds=fleet.config.offline_after_secs)


# --- taking ----------------------------------------------------------------------------------------------


def _take(conn: Connection, fleet: Fleet, agent: Row, wish: Wish) -> list[Held]:
    """What the operator assigned to it and it has not heard of yet; else the head of the queue."""
    open_ = runs.open_of_agent(conn, wish.agent_id)
    waiting = [run for run in open_ if not run["handed"]][: wish.most]
    for run in waiting:
        runs.handed(conn, run["id"])
    if waiting:
        return [Held(tasks.load(conn, run["task_pk"]), run) for run in waiting]
    free = agent["max_concurrency"] - len(open_)
    sets = claims.sets_met_by(conn, _capabilities(agent, wish.capabilities))
    chosen = claims.for_agents(conn, sets, min(wish.most, max(0, free)))
    at = fleet.clock()  # after the open runs were counted: whoever reads the history sees no slot used twice
    moved = tasks.record_locked(conn, [(task, _claimed(fleet, agent, at)) for task in chosen], at)
    return [held(conn, task.id, task.run) for task in moved]


def _capabilities(agent: Row, asked: tuple[str, ...] | None) -> list[str]:
    known = list(agent["capabilities"])
    if asked is None:
        return known
    wanted = {matching.capability(word) for word in asked}
    unknown = sorted(wanted - set(known))
    if unknown:
        raise Refused(Kind.INVALID, f"capabilities: {', '.join(unknown)}: not among those it registered with.")
    return sorted(wanted)


def _claimed(fleet: Fleet, agent: Row, at: datetime) -> Fact:
    confirm_by = at + timedelta(seconds=fleet.config.confirm_secs)
    return Fact(What.CLAIMED, {
        "agent_id": agent["agent_id"], "agent_type": agent["agent_type"], "until": confirm_by.isoformat(),
    })  # fmt: skip


def _handed_over(conn: Connection, held: Held) -> Json:
    """The task as the contract shows it, with the lease and all that is needed to work on it. The repository is named
    as it is now; a review that was not answered yet is in the prompt."""
    shown = views.task(conn, held.task.task_id, with_events=False) or {}
    shown.pop("runs"), shown.pop("debts")
    brief = views.brief(conn, held.task.id)
    _, text = start.prompt_of(conn, held.task, brief, resume=False)
    repository = held.task.repository_id and places.repository(conn, held.task.forge or "", held.task.repository_id)
    if repository:
        shown["repository"] = {name: repository[name] for name in ("full_name", "clone_url", "default_branch")}
    author = {"author_name": start.AUTHOR, "author_email": start.AUTHOR_EMAIL}
    message = speech.commit_message(brief["title"], held.task.issue_number, held.run["name"])
    return shown | {
        "prompt": shown["prompt"] | {"text": text},
        "lease": held.run["number"],
        "lease_expires_at": views.moment(held.run["deadline"]),
        "confirm_by": views.moment(held.run["deadline"]),
        "timeout_secs": brief["timeout_secs"],
        "commit": {"message": message, **author},
    }


# --- beating ---------------------------------------------------------------------------------------------


def _renew(conn: Connection, fleet: Fleet, held: Held, believed: set[tuple[str, int]] | None, at: datetime) -> Json:
    """One run of the agent's: renewed while it is wanted. A round of review begins when the agent names its lease."""
    task, run = held.task, held.run
    current = run["number"] == task.run and task.state in WORKING | {State.REVIEW_PENDING}
    named = believed is not None and (task.task_id, run["number"]) in believed
    deadline = run["deadline"]
    if not current:
        runs.ended(conn, run["id"], at, "stopped")
    elif task.state is not State.ASSIGNED and (named or (believed is None and run["started_at"])):
        deadline = until(fleet, at)
        (runs.beat if run["started_at"] else runs.started)(conn, run["id"], at, deadline)
    news = {
        "task_id": task.task_id,
        "lease": run["number"],
        "status": task.state,
        "stop": not current,
        "lease_expires_at": views.moment(deadline) if current else None,
    }
    feedback = _feedback(conn, task) if current and task.state is State.RUNNING else None
    return news | ({"feedback": feedback} if feedback else {})


def _feedback(conn: Connection, task: Task) -> Json | None:
    """The review that this run has to answer, with a text that is ready for a CLI."""
    if task.pr_number is None:
        return None
    asked = start.review_to_answer(conn, task)
    if asked is None:
        return None
    _, text = start.prompt_of(conn, task, views.brief(conn, task.id))
    return {
        "kind": What.CHANGES_REQUESTED,
        "by": asked["by"],
        "text": asked["text"],
        "comments": [{"path": path, "line": line, "text": words} for path, line, words in asked["comments"]],
        "prompt": text,
    }


def _over(conn: Connection, agent_id: str, task_id: str, lease: int) -> Json:
    """What to say of a task that the agent believes to hold and does not: how it stands if it was its own once."""
    status = None
    try:
        task = tasks.find(conn, task_id)
        mine = [run["number"] for run in runs.of_task(conn, task.id) if run["agent_id"] == agent_id]
        status = task.state if mine else None
        if lease in mine and lease == task.run and task.state is State.REVIEW_PENDING:
            return {"task_id": task_id, "lease": lease, "status": status, "stop": False, "lease_expires_at": None}
    except Refused:
        pass
    return {"task_id": task_id, "lease": lease, "status": status, "stop": True, "lease_expires_at": None}

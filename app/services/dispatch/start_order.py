"""Makes out the order for a run: what a worker must know to start it on its host, and nothing it must guess."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.domain import forge_messages, previous_runs, prompt
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import What
from app.domain.run import slug
from app.domain.task import WORKING, State, Task
from app.ports import Fleet
from app.services.dispatch.credentials import off
from app.store import fleet_config, runs, tasks, views
from app.store.tables import Row

GO_ON = "Go on where you stopped. This is what was asked:\n\n"
GIT_USER = "fleet"
FULL_NAME = re.compile(r"[0-9a-f]{40,64}\Z")  # of a commit
ROUNDS = (What.CHANGES_REQUESTED, What.CONFLICTED)
TOLD_TO_IT = (*ROUNDS, What.FINISHED, What.FAILED)  # what the next run's prompt is made from
MOST_ROUNDS = 5  # earlier rounds that a review's prompt tells of
AUTHOR, AUTHOR_EMAIL = "agent-fleet", "agent-fleet@localhost"


@dataclass(frozen=True)
class Order:
    """A run to be started. `session` is the CLI's session to go on with, None for a fresh one; `credentials`
    are for the repository, and go to the host on standard input only."""

    run: Row
    host: Row
    task_name: str
    cli: str
    template: dict[str, Any] | None
    prompt: str
    session: str | None
    repository: dict[str, Any] | None
    credentials: dict[str, str] | None
    validation: list[str]
    timeout_secs: int
    delivery: dict[str, str] | None
    fresh_prompt: str = ""  # for a CLI that cannot go on with a session
    hooks: Mapping[str, list[str]] = field(default_factory=dict)
    overrides: tuple[Mapping[str, Any], ...] = ()  # what the repository's rule and the host change about the template


def order(fleet: Fleet, debt: Row) -> Order | None:
    """The order that a START debt stands for; None when the task has gone on without it. Raises Refused; Unavailable
    where its repository was switched off meanwhile: no host is asked, and the run is not confirmed in time."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, debt["task_pk"])
        run = runs.get(conn, task.id, debt["run"])
        if run is None or run["ended_at"] or task.run != debt["run"] or task.state not in WORKING:
            return None
        if why := off(conn, task):
            raise Unavailable(why)
        host = fleet_config.host(conn, run["host_id"])
        if host is None:
            raise Refused(Kind.UNKNOWN, f"The host {run['host_id']!r} is not declared any more.")
        brief, cli = views.brief(conn, task.id), run["agent_type"]
        repository = task.repository_id and fleet_config.repository(conn, task.forge or "", task.repository_id)
        rule = fleet_config.rule_for(conn, task.forge or "", repository["full_name"]) if repository else None
        template, overrides = fleet_config.said_of(conn, cli, rule, host)
        of_task = runs.of_task(conn, task.id)
        session, text, fresh = _what_to_say(conn, task, run, brief, of_task)
        runs.keep_session(conn, run["id"], session)
    return Order(
        run=run,
        host=host,
        task_name=task_name(task),
        cli=cli,
        template=template,
        prompt=text,
        session=session,
        repository=repository_of(task, repository, brief) | last_pushed(of_task) if repository else None,
        credentials=credentials(fleet, task) if repository else None,
        validation=list(brief["validation"]),
        timeout_secs=brief["timeout_secs"],
        delivery=_delivery(task, run, brief, rule) if repository else None,
        fresh_prompt=fresh,
        hooks=_hooks(rule, brief),
        overrides=tuple(overrides),
    )


def task_name(task: Task) -> str:
    """The task's name on hosts."""
    return f"{slug(task.task_id)}-t{task.id}"


def _what_to_say(
    conn: Connection, task: Task, run: Row, brief: Row, of_task: Sequence[Row]
) -> tuple[str | None, str, str]:
    """The session to go on with, the prompt for it, and the one for a fresh session: each is told what others did that
    it does not know of."""
    session = session_for(of_task, run)
    before = [one for one in views.run_list(conn, task.id) if one["number"] < run["number"]]
    _, fresh = prompt_of(conn, task, brief, resume=False)
    fresh += previous_runs.write(before)
    if session is None:
        return None, fresh, fresh
    its_last = max((one["number"] for one in before if one["session"] == session), default=0)
    _, text = prompt_of(conn, task, brief, session=session)
    text += previous_runs.write([one for one in before if one["number"] > its_last])
    return session, text if review_to_answer(conn, task) else f"{GO_ON}{text}", fresh


def _hooks(rule: Row | None, brief: Row) -> dict[str, list[str]]:
    """The rule's commands around each step, then those that `.fleet.toml` of the default branch asked for."""
    own = (brief.get("settings") or {}).get("hooks") or {}
    ours = (rule["hooks"] if rule else None) or {}
    return {moment: [*ours.get(moment, ()), *own.get(moment, ())] for moment in sorted({*ours, *own})}


def session_for(of_task: Sequence[Row], run: Row) -> str | None:
    """The newest session of an earlier run that the same kind of CLI had on the same host. None where there is none, or
    where the CLI said that it is gone."""
    for before in reversed([one for one in of_task if one["number"] < run["number"]]):
        if (before["host_id"], before["agent_type"]) != (run["host_id"], run["agent_type"]):
            continue
        if (before["outcome"] or {}).get("failure") in ("no_session", "session_in_use"):
            return None
        if before["session"]:
            return str(before["session"])
    return None


def prompt_of(
    conn: Connection, task: Task, brief: Row | dict[str, Any], resume: bool = True, session: str | None = None
) -> tuple[str | None, str]:
    """The session to go on with and what to say in it: the issue, or the review that was not answered yet, and what
    went wrong with the attempt before. Who cannot `resume` the session is told all of it anew."""
    session = (session or task.session) if resume else None
    text, goal = brief["prompt"]["text"], brief["prompt"]["goal"]
    if task.run <= 1:
        return None, text
    told = views.events_of(conn, task.id, TOLD_TO_IT)
    since = _since_the_review(conn, task, told)
    why = next((event["detail"].get("why") for event in since if event["fact"] == What.FAILED), "") or ""
    asked = _asked(since)
    if asked is None:
        return None, prompt.read_again(text, why)
    review = _round_text(goal, asked, told)
    return session, prompt.read_again(review if session else f"{text}\n{review}", why)


def _round_text(goal: str, asked: dict[str, Any], told: list[dict[str, Any]]) -> str:
    """A round's own prompt: the review with its notes and what was said before it, or the conflict to be resolved."""
    if "base" in asked:
        return str(asked["text"])
    comments = [(path, line, text) for path, line, text in asked["comments"]]
    return prompt.read_review(
        goal, asked["text"], comments, asked.get("hunks") or (), _earlier(told, asked.get("review"))
    )


def _earlier(told: list[dict[str, Any]], review: int | None) -> list[dict[str, Any]]:
    """The rounds before this review: what was asked, and the agent's words when it was done."""
    rounds: list[dict[str, Any]] = []
    for event in told:
        if event["fact"] == What.CHANGES_REQUESTED:
            rounds.append({**event["detail"], "answer": ""})
        elif event["fact"] == What.FINISHED and rounds:
            rounds[-1]["answer"] = event["detail"].get("summary") or ""
    return [one for one in rounds if one.get("review") != review][-MOST_ROUNDS:]


def review_to_answer(conn: Connection, task: Task) -> dict[str, Any] | None:
    """The review that asked for changes and was not answered yet: by, text, comments."""
    return _asked(_since_the_review(conn, task, views.events_of(conn, task.id, ROUNDS)))


def _since_the_review(conn: Connection, task: Task, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of this, what happened after the task was last ready for review, newest first."""
    ready = views.last_in_state(conn, task.id, State.REVIEW_PENDING)
    return [event for event in reversed(told) if event["seq"] > ready]


def _asked(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((event["detail"] for event in events if event["fact"] in ROUNDS), None)


def push_of(task: Task, row: Row | dict[str, Any]) -> dict[str, Any] | None:
    """Whither an agent pushes its commits (`ref`), with which push options, and from where it fetches what was pushed
    before, if not from its branch. None without a repository."""
    repository = row["repository"]
    if not repository or not task.branch:
        return None
    if (row["settings"] or {}).get("flow") != "agit":
        return {"ref": f"refs/heads/{task.branch}", "options": [], "fetch": None}
    how = _agit(task, row, repository["default_branch"], task.branch)
    return {"ref": how["push_to"], "options": how["push_options"], "fetch": how.get("fetch_from")}


def repository_of(task: Task, repository: Row, brief: Row) -> dict[str, Any]:
    base, branch = repository["default_branch"], task.branch or ""
    where = {"url": repository["clone_url"], "base": base, "branch": branch}
    return where | _agit(task, brief, base, branch) if (brief["settings"] or {}).get("flow") == "agit" else where


def last_pushed(of_task: Sequence[Row]) -> dict[str, str]:
    """The newest commit that a run has pushed (`pushed`), nothing before the first: an agent may rewrite it, also on a
    host that took no note of it. A run that changed nothing may tell of a commit of others."""
    results: list[dict[str, Any]] = [run["result"] or {} for run in reversed(of_task)]
    told = (one for one in results if one.get("pushed") and (one.get("adopted") or one.get("changed", True)))
    head = next((one["head"] for one in told if FULL_NAME.match(one.get("head") or "")), None)
    return {"pushed": head} if head else {}


def _agit(task: Task, brief: Row | dict[str, Any], base: str, branch: str) -> dict[str, Any]:
    """A push that makes a pull request by itself, or moves the one that it made: whoever may read may do that. An
    option is one line, and Forgejo 11 and 12 know no way to write several: the whole text is put there later."""
    fetch = {"fetch_from": f"refs/pull/{task.pr_number}/head"} if task.pr_number else {}
    title = forge_messages.pull_title(brief["title"], True)
    options = [f"topic={branch}", f"title={_as_it_is(title)}", f"description={forge_messages.pushed(task)}"]
    return {"push_to": f"refs/for/{base}", "push_options": options, **fetch}


def _as_it_is(title: str) -> str:
    """A title that the forge will not take for something encoded."""
    return title.lstrip("{") if title.startswith("{base64}") else title


def credentials(fleet: Fleet, task: Task) -> dict[str, str] | None:
    with fleet.engine.begin() as conn:
        row = next((row for row in fleet_config.all_forges(conn) if row["name"] == task.forge), None)
    token = row and fleet.config.secret(row["token_env"], row["token_file"])
    return {"username": GIT_USER, "password": token} if token else None


def _delivery(task: Task, run: Row, brief: Row, rule: Row | None) -> dict[str, str]:
    """Who commits what the CLI left, and with which message: the rule's author, its trailers and the repository's."""
    wanted = (rule["commit"] if rule else None) or {}
    trailers = (*(wanted.get("trailers") or ()), *((brief["settings"] or {}).get("trailers") or ()))
    return {
        "message": forge_messages.commit_message(brief["title"], task.issue_number, run["name"], trailers),
        "author_name": wanted.get("author_name") or AUTHOR,
        "author_email": wanted.get("author_email") or AUTHOR_EMAIL,
    }

"""Makes the order of a run: everything that a worker needs to start it on its host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain import forge_messages
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.host import Machine
from app.domain.outbox import OutboxEntry
from app.domain.repository import Rule
from app.domain.run import Run, slug
from app.domain.task import WORKING, Task
from app.domain.task_details import TaskDetails
from app.ports import Fleet
from app.services.dispatch.credentials import why_switched_off
from app.services.dispatch.git_flow import GitLogin, RunRepository, last_pushed, login_of, repository_of
from app.services.dispatch.prompts import compose_prompts
from app.store import fleet_config, hosts, repositories, runs, task_details, tasks

AUTHOR, AUTHOR_EMAIL = "agent-fleet", "agent-fleet@localhost"


@dataclass(frozen=True)
class Commit:
    """Message and author of the commit of the changes that the CLI left uncommitted."""

    message: str
    author_name: str
    author_email: str


@dataclass(frozen=True)
class Order:
    """A run to start. `session` is the CLI's session to resume, None for a fresh one.

    `credentials` are for the repository; they reach the host on standard input only.
    """

    run: Run
    host: Machine
    task_name: str
    cli: str
    template: dict[str, Any] | None
    prompt: str
    session: str | None
    repository: RunRepository | None
    credentials: GitLogin | None
    validation: list[str]
    timeout_secs: int
    delivery: Commit | None
    fresh_prompt: str = ""  # for a CLI that cannot resume a session
    hooks: Mapping[str, list[str]] = field(default_factory=dict)
    overrides: tuple[Mapping[str, Any], ...] = ()  # what the repository's rule and the host change about the template


def order(fleet: Fleet, entry: OutboxEntry) -> Order | None:
    """The order that a START entry stands for; None when the task has gone on without it. Raises Refused.

    Raises Unavailable if its repository was switched off meanwhile: the run is not started, and expires unconfirmed.
    """
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, entry.task_pk)
        run = runs.get(conn, task.id, entry.run)
        if run is None or run.ended_at or task.run != entry.run or task.state not in WORKING:
            return None
        if why := why_switched_off(conn, task):
            raise Unavailable(why)
        host = hosts.machine(conn, run.host_id or "")
        if host is None:
            raise Refused(Kind.UNKNOWN, f"The host {run.host_id!r} is not declared any more.")
        details, cli = task_details.get(conn, task.id), run.agent_type or ""
        repository = repositories.repository(conn, task.forge, task.repository_id)
        rule = fleet_config.rule_for(conn, task.forge or "", repository.full_name) if repository else None
        template, overrides = fleet_config.cli_declaration(conn, cli, rule, host)
        of_task = runs.of_task(conn, task.id)
        session, text, fresh = compose_prompts(conn, task, run, details, of_task)
        runs.set_session(conn, run.id, session)
    return Order(
        run=run,
        host=host,
        task_name=task_name(task),
        cli=cli,
        template=template,
        prompt=text,
        session=session,
        repository=repository_of(task, repository, details, last_pushed(of_task)) if repository else None,
        credentials=login_of(fleet, task) if repository else None,
        validation=list(details.validation),
        timeout_secs=details.timeout_secs,
        delivery=_delivery(task, run, details, rule) if repository else None,
        fresh_prompt=fresh,
        hooks=_hooks(rule, details),
        overrides=tuple(overrides),
    )


def task_name(task: Task) -> str:
    """The task's name on hosts."""
    return f"{slug(task.task_id)}-t{task.id}"


def _hooks(rule: Rule | None, details: TaskDetails) -> dict[str, list[str]]:
    """The commands around each step: the rule's first, then those of `.fleet.toml` on the default branch."""
    own = details.settings.hooks
    ours = (rule.hooks if rule else None) or {}
    return {moment: [*ours.get(moment, ()), *own.get(moment, ())] for moment in sorted({*ours, *own})}


def _delivery(task: Task, run: Run, details: TaskDetails, rule: Rule | None) -> Commit:
    """Author and message of the commit of what the CLI left uncommitted, with the trailers of rule and repository."""
    wanted = (rule.commit if rule else None) or {}
    trailers = (*(wanted.get("trailers") or ()), *details.settings.trailers)
    return Commit(
        message=forge_messages.commit_message(details.title, task.issue_number, run.name, trailers),
        author_name=wanted.get("author_name") or AUTHOR,
        author_email=wanted.get("author_email") or AUTHOR_EMAIL,
    )

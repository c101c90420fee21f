"""Describes how a run pushes: branch or AGit, remote, credentials and the last pushed commit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain import forge_messages
from app.domain.repository import RepositoryRecord
from app.domain.run import Run
from app.domain.task import Task
from app.domain.task_details import TaskDetails
from app.ports import Fleet
from app.store import fleet_config

GIT_USER = "fleet"
FULL_NAME = re.compile(r"[0-9a-f]{40,64}\Z")  # of a commit


@dataclass(frozen=True)
class AgitPush:
    """How a run pushes without write access: to a ref of the forge's own, with push options."""

    push_to: str
    push_options: tuple[str, ...]
    fetch_from: str | None = None  # the ref of earlier pushes; None before the first pull request


@dataclass(frozen=True)
class RunRepository:
    """The repository as a run uses it: what to clone, and which branch to push."""

    url: str
    base: str  # the branch that the work starts from
    branch: str
    agit: AgitPush | None = None  # None: the run pushes `branch` itself
    pushed: str | None = None  # the newest commit that a run of the task has pushed


@dataclass(frozen=True)
class GitLogin:
    """The forge's user and token that a run clones and pushes with."""

    username: str
    password: str = field(repr=False)


def push_of(task: Task, details: TaskDetails) -> dict[str, Any] | None:
    """How an agent pushes, as the API shows it; None without a repository.

    `ref`, the push `options`, and `fetch`: the ref of earlier pushes, if that is not its branch.
    """
    repository = details.repository
    if not repository or not task.branch:
        return None
    if details.settings.flow != "agit":
        return {"ref": f"refs/heads/{task.branch}", "options": [], "fetch": None}
    agit = _agit(task, details, repository["default_branch"], task.branch)
    return {"ref": agit.push_to, "options": list(agit.push_options), "fetch": agit.fetch_from}


def repository_of(
    task: Task, repository: RepositoryRecord, details: TaskDetails, pushed: str | None = None
) -> RunRepository:
    """The repository of a task's runs. `pushed` is the newest commit that one of them has pushed."""
    base, branch = repository.default_branch, task.branch or ""
    agit = _agit(task, details, base, branch) if details.settings.flow == "agit" else None
    return RunRepository(repository.clone_url, base, branch, agit, pushed)


def last_pushed(of_task: Sequence[Run]) -> str | None:
    """The newest commit that a run has pushed; None before the first push.

    The CLI may rewrite that commit, on any host. A run that changed nothing does not count.
    """
    results: list[Mapping[str, Any]] = [run.result or {} for run in reversed(of_task)]
    told = (one for one in results if one.get("pushed") and (one.get("adopted") or one.get("changed", True)))
    return next((one["head"] for one in told if FULL_NAME.match(one.get("head") or "")), None)


def _agit(task: Task, details: TaskDetails, base: str, branch: str) -> AgitPush:
    """An AGit push: it opens a pull request or updates it, and needs only read access.

    A push option is one line. Forgejo 11 and 12 cannot encode more, so the whole description is written later.
    """
    title = forge_messages.pull_title(details.title, True)
    options = (f"topic={branch}", f"title={_without_encoding(title)}", f"description={forge_messages.pushed(task)}")
    return AgitPush(f"refs/for/{base}", options, f"refs/pull/{task.pr_number}/head" if task.pr_number else None)


def _without_encoding(title: str) -> str:
    """The title without a prefix that the forge would decode."""
    return title.lstrip("{") if title.startswith("{base64}") else title


def login_of(fleet: Fleet, task: Task) -> GitLogin | None:
    """The login for a task's forge; None if there is no token for it."""
    with fleet.engine.begin() as conn:
        row = next((row for row in fleet_config.all_forges(conn) if row.name == task.forge), None)
    token = row and fleet.config.secret(row.token_env, row.token_file)
    return GitLogin(GIT_USER, token) if token else None

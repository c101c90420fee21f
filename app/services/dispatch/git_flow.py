"""Describes how a run pushes: branch or AGit, remote, credentials and the last pushed commit."""

import re
from collections.abc import Mapping, Sequence
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


def push_of(task: Task, details: TaskDetails) -> dict[str, Any] | None:
    """How an agent pushes: `ref`, push `options`, and `fetch`: the ref of earlier pushes, if not its branch.

    None without a repository.
    """
    repository = details.repository
    if not repository or not task.branch:
        return None
    if details.settings.flow != "agit":
        return {"ref": f"refs/heads/{task.branch}", "options": [], "fetch": None}
    how = _agit(task, details, repository["default_branch"], task.branch)
    return {"ref": how["push_to"], "options": how["push_options"], "fetch": how.get("fetch_from")}


def repository_of(task: Task, repository: RepositoryRecord, details: TaskDetails) -> dict[str, Any]:
    base, branch = repository.default_branch, task.branch or ""
    where = {"url": repository.clone_url, "base": base, "branch": branch}
    return where | _agit(task, details, base, branch) if details.settings.flow == "agit" else where


def last_pushed(of_task: Sequence[Run]) -> dict[str, str]:
    """The newest commit that a run has pushed, as `pushed`; empty before the first push.

    The CLI may rewrite that commit, on any host. A run that changed nothing does not count.
    """
    results: list[Mapping[str, Any]] = [run.result or {} for run in reversed(of_task)]
    told = (one for one in results if one.get("pushed") and (one.get("adopted") or one.get("changed", True)))
    head = next((one["head"] for one in told if FULL_NAME.match(one.get("head") or "")), None)
    return {"pushed": head} if head else {}


def _agit(task: Task, details: TaskDetails, base: str, branch: str) -> dict[str, Any]:
    """An AGit push: it opens a pull request or updates it, and needs only read access.

    A push option is one line. Forgejo 11 and 12 cannot encode more, so the whole description is written later.
    """
    fetch = {"fetch_from": f"refs/pull/{task.pr_number}/head"} if task.pr_number else {}
    title = forge_messages.pull_title(details.title, True)
    options = [f"topic={branch}", f"title={_without_encoding(title)}", f"description={forge_messages.pushed(task)}"]
    return {"push_to": f"refs/for/{base}", "push_options": options, **fetch}


def _without_encoding(title: str) -> str:
    """The title without a prefix that the forge would decode."""
    return title.lstrip("{") if title.startswith("{base64}") else title


def credentials(fleet: Fleet, task: Task) -> dict[str, str] | None:
    with fleet.engine.begin() as conn:
        row = next((row for row in fleet_config.all_forges(conn) if row.name == task.forge), None)
    token = row and fleet.config.secret(row.token_env, row.token_file)
    return {"username": GIT_USER, "password": token} if token else None

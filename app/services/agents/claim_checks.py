"""Checks an agent's claims on the forge: pull requests, commits, branches and files."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from app.domain.errors import Kind, Refused
from app.domain.repository import RepositoryRecord
from app.domain.task import Task
from app.ports import Fleet, Forge, Pull
from app.services.forge import forbidden_paths
from app.store import repositories, views

Json = Mapping[str, Any]


COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")


PULL = re.compile(r"/pulls/([0-9]{1,18})/?\Z")


class ClaimChecks:
    """Looks on the forge whether what an agent claims is so."""

    def __init__(self, fleet: Fleet, task: Task) -> None:
        self.task, self._fleet = task, fleet
        self.pull: Pull | None = None
        self.commits: list[str] = []
        row = _repository(fleet, task) if task.forge else None
        self._forge = fleet.forges(task.forge or "") if row else None
        self._name = row.full_name if row else ""
        self._base = row.default_branch if row else ""

    def check(self, artifact: Json) -> dict[str, Any]:
        """The artifact, with `checked` true when the forge holds it, false where only the agent's word is to be had."""
        kind = str(artifact["type"])
        how = self._CHECKS.get(kind)
        if how is None:
            return {**artifact, "checked": False}
        if self._forge is None:
            raise Refused(Kind.INVALID, f"artifacts: {kind}: {self.task.task_id} has no repository to hold it.")
        if not how(self, self._forge, artifact):
            raise Refused(Kind.INVALID, f"artifacts: {kind} {_short(artifact)} is not on the forge as claimed.")
        return {**artifact, "checked": True}

    def head(self) -> str | None:
        """The newest commit of the task's branch, if the branch holds anything that its base does not; or of the pull
        request that a push to `refs/for/` made instead of a branch."""
        if self._forge is None:
            return None
        head = self._forge.branch_head(self._name, self.task.branch or "")
        if head is None:
            topic = self._topic(self._forge)
            return topic.head if topic else None
        return head if head != self._forge.branch_head(self._name, self._base) else None

    def keep_off(self, pull: Pull) -> None:
        """Raises Refused where the pull request touches what `.fleet.toml` wants left as it is."""
        hit = (
            forbidden_paths.changed_forbidden(self._fleet, self._forge, self._name, self.task, pull)
            if self._forge
            else []
        )
        if hit:
            raise forbidden_paths.refusal(pull, hit)

    def _topic(self, forge: Forge) -> Pull | None:
        with self._fleet.engine.begin() as conn:
            settings = views.brief(conn, self.task.id)["settings"] or {}
        if settings.get("flow") != "agit":
            return None
        heads = {*self.commits, *([self.pull.head] if self.pull else [])}
        return self.pull or forge.find_open_pull(self._name, self.task.branch or "", self._base, heads)

    def _pull_is_there(self, forge: Forge, artifact: Json) -> bool:
        """It exists, it is at this address, and it comes from this task's branch, or has it as its topic."""
        named = PULL.search(urlsplit(artifact["url"]).path)
        pull = forge.pull(self._name, int(named[1])) if named else None
        if pull is None or pull.url.rstrip("/") != artifact["url"].rstrip("/"):
            return False
        if pull.base != self._base:
            return False
        if pull.branch != self.task.branch and not (pull.flow and pull.branch.endswith(f"/{self.task.branch}")):
            return False
        self.pull = pull
        return True

    def _commit_is_there(self, forge: Forge, artifact: Json) -> bool:
        return bool(COMMIT.match(artifact["sha"])) and forge.has_commit(self._name, artifact["sha"])

    def _branch_is_there(self, forge: Forge, artifact: Json) -> bool:
        return forge.branch_head(self._name, artifact["ref"].removeprefix("refs/heads/")) is not None

    def _file_is_there(self, forge: Forge, artifact: Json) -> bool:
        return forge.has_file(self._name, self.head() or self.task.branch or "", artifact["path"])

    _CHECKS: Mapping[str, Callable[["ClaimChecks", Forge, Json], bool]] = {
        "pr": _pull_is_there,
        "commit": _commit_is_there,
        "branch": _branch_is_there,
        "file": _file_is_there,
    }


def _repository(fleet: Fleet, task: Task) -> RepositoryRecord | None:
    with fleet.engine.begin() as conn:
        return repositories.repository(conn, task.forge, task.repository_id)


def _short(artifact: Json) -> str:
    return ascii(next((value for name, value in artifact.items() if name != "type"), ""))[:200]

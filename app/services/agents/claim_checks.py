"""Checks an agent's claims on the forge: pull requests, commits, branches and files."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.domain.agent_report import Artifact
from app.domain.errors import Kind, Refused
from app.domain.repository import RepositoryRecord
from app.domain.task import Task
from app.ports import Fleet, Forge, Pull
from app.services.forge import forbidden_paths
from app.store import repositories, task_details

COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
PULL = re.compile(r"/pulls/([0-9]{1,18})/?\Z")


@dataclass(frozen=True)
class CheckedArtifact:
    """An artifact; `is_verified` is False if nothing but the agent's word supports it."""

    artifact: Artifact
    is_verified: bool

    def as_json(self) -> dict[str, Any]:
        return self.artifact.as_json() | {"checked": self.is_verified}


class ClaimChecks:
    """Checks the artifacts of one receipt. `pull` is the pull request among them, once it was checked."""

    def __init__(self, fleet: Fleet, task: Task) -> None:
        self.task, self._fleet = task, fleet
        self.pull: Pull | None = None
        self.commits: list[str] = []
        row = _repository(fleet, task) if task.forge else None
        self._forge = fleet.forges(task.forge or "") if row else None
        self._name = row.full_name if row else ""
        self._base = row.default_branch if row else ""

    def check(self, artifact: Artifact) -> CheckedArtifact:
        """Look the artifact up on the forge. Raises Refused(invalid) if it is not there as claimed."""
        kind, exists = artifact.type, self._CHECKS.get(artifact.type)
        if exists is None:
            return CheckedArtifact(artifact, is_verified=False)
        if self._forge is None:
            raise Refused(Kind.INVALID, f"artifacts: {kind}: {self.task.task_id} has no repository to hold it.")
        if not exists(self, self._forge, artifact):
            shown = ascii(artifact.value)[:200]
            raise Refused(Kind.INVALID, f"artifacts: {kind} {shown} is not on the forge as claimed.")
        return CheckedArtifact(artifact, is_verified=True)

    def head(self) -> str | None:
        """The newest commit of the task's branch, if it differs from the base branch.

        Without a branch: of the pull request that a push to `refs/for/` created.
        """
        if self._forge is None:
            return None
        head = self._forge.branch_head(self._name, self.task.branch or "")
        if head is None:
            pull = self._pull_of_topic(self._forge)
            return pull.head if pull else None
        return head if head != self._forge.branch_head(self._name, self._base) else None

    def refuse_forbidden_paths(self, pull: Pull) -> None:
        """Raises Refused if the pull request changes paths that `.fleet.toml` forbids."""
        hit = (
            forbidden_paths.changed_forbidden(self._fleet, self._forge, self._name, self.task, pull)
            if self._forge
            else []
        )
        if hit:
            raise forbidden_paths.refusal(pull, hit)

    def _pull_of_topic(self, forge: Forge) -> Pull | None:
        with self._fleet.engine.begin() as conn:
            settings = task_details.get(conn, self.task.id).settings
        if settings.flow != "agit":
            return None
        heads = {*self.commits, *([self.pull.head] if self.pull else [])}
        return self.pull or forge.find_open_pull(self._name, self.task.branch or "", self._base, heads)

    def _pull_exists(self, forge: Forge, artifact: Artifact) -> bool:
        """The pull request has this address, and comes from this task's branch or has it as its topic."""
        url = artifact.url or ""
        named = PULL.search(urlsplit(url).path)
        pull = forge.pull(self._name, int(named[1])) if named else None
        if pull is None or pull.url.rstrip("/") != url.rstrip("/"):
            return False
        if pull.base != self._base:
            return False
        if pull.branch != self.task.branch and not (pull.flow and pull.branch.endswith(f"/{self.task.branch}")):
            return False
        self.pull = pull
        return True

    def _commit_exists(self, forge: Forge, artifact: Artifact) -> bool:
        sha = artifact.sha or ""
        return bool(COMMIT.match(sha)) and forge.has_commit(self._name, sha)

    def _branch_exists(self, forge: Forge, artifact: Artifact) -> bool:
        return forge.branch_head(self._name, (artifact.ref or "").removeprefix("refs/heads/")) is not None

    def _file_exists(self, forge: Forge, artifact: Artifact) -> bool:
        return forge.has_file(self._name, self.head() or self.task.branch or "", artifact.path or "")

    _CHECKS: Mapping[str, Callable[["ClaimChecks", Forge, Artifact], bool]] = {
        "pr": _pull_exists,
        "commit": _commit_exists,
        "branch": _branch_exists,
        "file": _file_exists,
    }


def _repository(fleet: Fleet, task: Task) -> RepositoryRecord | None:
    with fleet.engine.begin() as conn:
        return repositories.repository(conn, task.forge, task.repository_id)

"""What agents report: receipts with artifacts, progress, and pieces of logs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.run import Usage


@dataclass(frozen=True)
class Artifact:
    """A claimed result: a pull request, commit, branch, file or address. Its type says which field is set."""

    type: str  # pr, commit, branch, file, url
    url: str | None = None
    sha: str | None = None
    ref: str | None = None
    path: str | None = None

    @property
    def value(self) -> str:
        return self.url or self.sha or self.ref or self.path or ""

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class AgentReceipt:
    """How an agent's work on a task ended. `lease` None: the newest one."""

    task_id: str
    status: str  # completed, failed, partial
    lease: int | None = None
    summary: str | None = None
    error: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    duration_seconds: float | None = None
    usage: Usage = field(default_factory=Usage)
    checks: tuple[Mapping[str, Any], ...] = ()  # {command, exit_code, seconds?, tail?}
    session: str | None = None
    cli_version: str | None = None
    failure: str | None = None  # a name of docs/failures.md
    resets_at: str | None = None  # RFC 3339

    @classmethod
    def from_json(cls, body: Mapping[str, Any], task_id: str) -> "AgentReceipt":
        """Of a request that the API has checked."""
        known = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        return cls(**known | {
            "task_id": task_id,
            "artifacts": tuple(Artifact(**one) for one in body.get("artifacts") or ()),
            "usage": Usage(**(body.get("usage") or {})),
            "checks": tuple(body.get("checks") or ()),
        })  # fmt: skip

    @property
    def is_completed(self) -> bool:
        return self.status == "completed"

    @property
    def fingerprint(self) -> str:
        """The same for a receipt that is sent again: times and usage do not count."""
        said = [self.status, [one.as_json() for one in self.artifacts], self.summary, self.error]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class StatusReport:
    """The progress of a run, or that the agent gives it up. `progress` is the agent's own JSON, with `usage` in it."""

    task_id: str
    lease: int | None = None
    message: str | None = None
    progress: object = None


@dataclass(frozen=True)
class LogUpload:
    """Bytes of a run's log, from `offset`."""

    task_id: str
    lease: int
    stream: str  # stdout, stderr
    offset: int
    data: bytes

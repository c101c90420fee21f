"""Parses the messages of the fleet's API that the agent acts on; docs/agent-protocol.md describes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

Json = dict[str, Any]  # a message, or a file of the agent's state, before it is parsed


class PushBody(TypedDict):
    """A push as the API names it."""

    ref: str
    options: list[str]
    fetch: str | None


@dataclass(frozen=True)
class Push:
    """How to push: `git push origin HEAD:<ref>`, with `-o` for each of `options`. `fetch` is the ref pushed before."""

    ref: str
    options: tuple[str, ...] = ()
    fetch: str | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any] | None) -> "Push | None":
        if not body or not body.get("ref"):
            return None
        return cls(str(body["ref"]), tuple(body.get("options") or ()), body.get("fetch"))

    def as_json(self) -> PushBody:
        return {"ref": self.ref, "options": list(self.options), "fetch": self.fetch}


@dataclass(frozen=True)
class Repository:
    """Where the work is fetched from and pushed to."""

    clone_url: str
    default_branch: str


@dataclass(frozen=True)
class Work:
    """A task as the dequeue returned it. `repository` None: the task has none."""

    task_id: str
    lease: int
    prompt: str
    branch_name: str | None = None
    wants_pull_request: bool = False
    timeout_secs: int | None = None
    checks: tuple[str, ...] = ()  # commands to run on the work
    repository: Repository | None = None
    push: Push | None = None
    commit: Mapping[str, str] = field(default_factory=dict)  # message, author_name, author_email

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Work":
        known = body.get("repository")
        return cls(
            task_id=body["task_id"],
            lease=body["lease"],
            prompt=(body.get("prompt") or {}).get("text") or "",
            branch_name=body.get("branch_name"),
            wants_pull_request=bool(body.get("wants_pull_request")),
            timeout_secs=body.get("timeout_secs"),
            checks=tuple(body.get("checks") or ()),
            repository=Repository(known["clone_url"], known["default_branch"]) if known else None,
            push=Push.from_json(body.get("push")),
            commit=body.get("commit") or {},
        )

    def as_json(self) -> dict[str, object]:
        """As `from_json` reads it."""
        return vars(self) | {
            "prompt": {"text": self.prompt},
            "checks": list(self.checks),
            "repository": vars(self.repository) if self.repository else None,
            "push": self.push.as_json() if self.push else None,
            "commit": dict(self.commit),
        }


@dataclass(frozen=True)
class Feedback:
    """A review that asks for changes; `prompt` is complete."""

    by: str
    prompt: str
    push: Push | None


@dataclass(frozen=True)
class TaskUpdate:
    """What a heartbeat returns about one task. `is_held` is False while the lease has no end, after the receipt."""

    task_id: str
    lease: int
    status: str | None
    stop: bool
    is_held: bool
    feedback: Feedback | None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TaskUpdate":
        asked = body.get("feedback")
        return cls(
            task_id=body["task_id"],
            lease=body["lease"],
            status=body["status"],
            stop=bool(body["stop"]),
            is_held=body["lease_expires_at"] is not None,
            feedback=Feedback(asked["by"], asked["prompt"], Push.from_json(asked.get("push"))) if asked else None,
        )


@dataclass(frozen=True)
class TaskState:
    """The answer to a report: the task's status, and whether the agent must stop working."""

    status: str
    stop: bool

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TaskState":
        return cls(str(body.get("status")), bool(body["stop"]))

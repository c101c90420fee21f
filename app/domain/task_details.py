"""The texts and settings of a task: what was requested, the prompt that was accepted, how the work is checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.domain.prompt import Prompt


@dataclass(frozen=True)
class TaskSettings:
    """Settings of a task's repository, as they were when its text was accepted."""

    reviewers: tuple[str, ...] = ()
    forbidden_paths: tuple[str, ...] = ()
    trailers: tuple[str, ...] = ()  # lines at the end of each commit message
    faults: tuple[str, ...] = ()  # sentences about a `.fleet.toml` that could not be used
    flow: str = "branch"  # or "agit": a push to refs/for/
    hooks: Mapping[str, list[str]] = field(default_factory=dict)  # moment of a run -> commands

    @classmethod
    def from_json(cls, given: Mapping[str, Any] | None) -> "TaskSettings":
        found = given or {}
        lists = ("reviewers", "forbidden_paths", "trailers", "faults")
        kept = {name: tuple(found.get(name) or ()) for name in lists}
        return cls(**kept, flow=found.get("flow") or "branch", hooks=found.get("hooks") or {})

    def as_json(self) -> dict[str, Any]:
        lists = ("reviewers", "forbidden_paths", "trailers", "faults")
        return {name: list(getattr(self, name)) for name in lists} | {"flow": self.flow, "hooks": dict(self.hooks)}


@dataclass(frozen=True)
class AcceptedText:
    """What is stored of a text when it is accepted. `issue` is its number, title and url as the API shows them."""

    title: str
    requirements: str
    prompt: Prompt
    issue_sha256: str | None = None  # the fingerprint of the issue's title and body; None without an issue
    issue: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TaskDetails:
    """What a task is about. `repository` and `issue` are kept as the API shows them."""

    text: AcceptedText
    source: str  # "api", or "forgejo:" and the task id
    task_type: str
    labels: tuple[str, ...] = ()
    repository: Mapping[str, Any] | None = None
    validation: tuple[str, ...] = ()  # commands that check the work
    timeout_secs: int = 3600  # of one run
    requested_by: str | None = None  # the issue's author, or "operator"
    accepted_entry: int | None = None  # the timeline entry that requested the work last
    settings: TaskSettings = TaskSettings()
    active_at: datetime | None = None  # when a person or an agent last pushed to the branch

    @property
    def title(self) -> str:
        return self.text.title

    @property
    def prompt(self) -> Prompt:
        return self.text.prompt

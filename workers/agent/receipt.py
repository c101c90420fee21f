"""Makes the receipt of a run from the supervisor's result and the CLI's outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NotRequired, TypedDict

from app.domain.lifecycle import Fact, FactKind
from app.domain.run import Outcome, judge
from workers.agent import boot_clock
from workers.agent.held_tasks import HeldTask

MOST_COMMITS, MOST_CHECKS = 50, 100
LONGEST = 20_000  # characters of a summary or an error
LONGEST_COMMAND = 2000


class Artifact(TypedDict):
    """A claimed result: a commit by its `sha`, or a branch by its `ref`."""

    type: str
    sha: NotRequired[str]
    ref: NotRequired[str | None]


class Check(TypedDict):
    """A validation command that was run, with the last lines of its output."""

    command: str
    exit_code: int
    seconds: NotRequired[float | None]
    tail: NotRequired[str | None]


class Spent(TypedDict):
    """What the run used: tokens and dollars."""

    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


@dataclass(frozen=True)
class Receipt:
    """A receipt by the names of the API. `again`: it replaces one that was refused, and is not replaced in turn."""

    lease: int
    status: str  # completed, failed
    duration_seconds: float | None = None
    summary: str | None = None
    error: str | None = None
    failure: str | None = None  # a name of docs/failures.md
    resets_at: str | None = None  # RFC 3339
    session: str | None = None
    usage: Spent | None = None
    artifacts: tuple[Artifact, ...] = ()
    checks: tuple[Check, ...] = ()
    again: bool = False

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Receipt":
        given: dict[str, Any] = {one.name: saved[one.name] for one in fields(cls) if one.name in saved}
        given |= {name: tuple(given.get(name) or ()) for name in ("artifacts", "checks")}
        return cls(**given)

    def as_json(self) -> dict[str, object]:
        """All that is known of it, to be saved."""
        return {
            name: value for name, value in vars(self).items() if not (value is None or value is False or value == ())
        }

    def body(self) -> dict[str, object]:
        """What is sent."""
        return {name: value for name, value in self.as_json().items() if name != "again"}


def make_receipt(held: HeldTask, result: Mapping[str, Any], outcome: Outcome) -> Receipt:
    """The receipt of a run that has ended; `result` is the supervisor's. It claims only what was pushed."""
    fact = judge(held.lease, result, outcome)
    is_unreadable = fact.kind is FactKind.FINISHED and _is_unreadable(held, fact)
    is_completed = fact.kind is FactKind.FINISHED and not is_unreadable
    why = fact.detail.get("why") or "the CLI's output could not be read"
    return Receipt(
        lease=held.lease,
        status="completed" if is_completed else "failed",
        duration_seconds=round(max(0.0, boot_clock.now() - held.started_at), 3),
        summary=(outcome.final_text or "")[:LONGEST],
        error=None if is_completed else str(why)[:LONGEST],
        failure=None if is_completed else "unreadable" if is_unreadable else fact.detail.get("reason"),
        resets_at=None if is_completed else fact.detail.get("until"),
        session=outcome.session_id,
        usage=outcome.as_json()["usage"],
        artifacts=tuple(_artifacts(held, result)),
        checks=tuple(_shorten_check(one) for one in (result.get("validation") or [])[:MOST_CHECKS]),
    )


def lost_receipt(held: HeldTask, why: str, failure: str = "lost") -> Receipt:
    """The receipt of a run of which nothing is known."""
    return Receipt(held.lease, "failed", error=why, failure=failure)


def replace_refused(receipt: Receipt, why: str) -> Receipt:
    """The receipt that replaces one whose claims were refused."""
    return Receipt(
        receipt.lease, "failed", duration_seconds=receipt.duration_seconds, usage=receipt.usage, again=True,
        error=f"The fleet refused the receipt: {why}",
    )  # fmt: skip


def _is_unreadable(held: HeldTask, fact: Fact) -> bool:
    """Without a pull request there is no proof but the CLI's output, and it must have been understood."""
    return bool(fact.detail.get("unreadable")) and not held.work.wants_pull_request


def _artifacts(held: HeldTask, result: Mapping[str, Any]) -> list[Artifact]:
    if not result.get("pushed"):
        return []
    commits = [Artifact(type="commit", sha=sha) for sha in result.get("commits") or []][-MOST_COMMITS:]
    ref, branch = held.work.push.ref if held.work.push else "refs/heads/", held.work.branch_name
    return ([Artifact(type="branch", ref=branch)] if ref.startswith("refs/heads/") else []) + commits


def _shorten_check(one: Check) -> Check:
    return {**one, "command": str(one["command"])[:LONGEST_COMMAND]}

"""A run, one attempt at a task: its row, its outcome, and the fact that its end amounts to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from app.domain.failures import TABLE
from app.domain.lifecycle import Fact, FactKind


@dataclass(frozen=True)
class Run:
    """One row of the runs table. Moments are in UTC, sizes in bytes.

    Set when the fact is recorded that begins the run: `id` to `agent_type`, `acknowledged`, the first `deadline` and
    the `session` to resume. All else is set by reports, by polls of the host, and by the expiry job.
    """

    id: int
    task_pk: int  # the task's key, Task.id
    number: int  # 1, 2, ... per task: the fence that every report carries
    name: str  # the run's folder on its host, unique: see run_name
    assigned_at: datetime
    host_id: str | None = None  # a run has either a host
    agent_id: str | None = None  # or an agent
    agent_type: str | None = None  # the kind of CLI that runs it
    started_at: datetime | None = None  # when the runner confirmed the start
    deadline: datetime | None = None  # the end of the lease; None once it has ended
    seen_at: datetime | None = None  # the newest report, or poll that found it alive
    ended_at: datetime | None = None
    end: str | None = None  # how it ended: the supervisor's word, or "expired", "stopped", "given_back"
    result: Mapping[str, Any] | None = None  # the supervisor's result.json, or the agent's receipt
    outcome: Mapping[str, Any] | None = None  # Outcome.kept(): what the parser read in the CLI's output
    session: str | None = None  # the CLI's id of its session: to resume at first, then the one it has
    message: str | None = None  # the newest progress in one line
    progress: Mapping[str, Any] | None = None  # the newest progress, with the usage so far
    usage_day: date | None = None  # the newest day (UTC) on which it reported usage
    usage_before: Mapping[str, Any] | None = None  # the usage it had reported before that day
    acknowledged: bool = True  # false until the agent has received a run that an operator gave it
    stop_reason: Mapping[str, Any] | None = None  # why we stop it, written before the host is asked to
    stdout_size: int = 0  # bytes of its log that are stored
    stderr_size: int = 0
    released_at: datetime | None = None  # when the host deleted its folder
    saved: str | None = None  # the ref to which the host pushed work that was nowhere else

    def log_size(self, stream: str) -> int:
        """How many bytes of `stdout` or `stderr` are stored."""
        return self.stdout_size if stream == "stdout" else self.stderr_size


class Verdict(StrEnum):
    """What a CLI's own output says about how it ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LIMITED = "limited"
    KILLED = "killed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Usage:
    """What a run used, as far as its CLI says. All input tokens, of them those from a cache; dollars."""

    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    @classmethod
    def told(cls, by: object) -> "Usage":
        """Parse untrusted input. A value that is not a count becomes None."""
        counts = by if isinstance(by, Mapping) else {}
        return cls(**{f.name: counts[f.name] for f in fields(cls) if _is_count(counts.get(f.name))})

    @property
    def tokens(self) -> int:
        return (self.input_tokens or 0) + (self.output_tokens or 0)

    def since(self, before: "Usage") -> "Usage":
        """What of these counters, which count a whole session, came after `before`. A counter that stands lower than
        it did has begun anew."""
        pairs = {f.name: (getattr(self, f.name), getattr(before, f.name)) for f in fields(self)}
        return Usage(**{
            name: now if now is None or was is None or now < was else round(now - was, 9)
            for name, (now, was) in pairs.items()
        })  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A parser's reading of a CLI's output. `failure` is a name of failures.TABLE or None; `resets_at` RFC 3339.

    `usage` is this run's; `session_usage` what the CLI printed for the whole session, where it counts that way: the
    next run of the session takes it off. `error` is what the CLI itself said of a failure, `warning` a limit that is
    near, `cost_source` who reckoned the dollars.
    """

    verdict: Verdict
    final_text: str | None = None
    session_id: str | None = None
    usage: Usage = field(default_factory=Usage)
    failure: str | None = None
    resets_at: str | None = None
    denied_actions: tuple[str, ...] = ()
    error: str | None = None
    warning: str | None = None
    cost_source: str | None = None
    session_usage: Usage | None = None

    def as_json(self) -> dict[str, Any]:
        """What the contract shows."""
        kept = self.kept()
        return {name: kept[name] for name in CONTRACT}

    def kept(self) -> dict[str, Any]:
        """All of it, as it is stored."""
        whole = self.session_usage
        return vars(self) | {"usage": {**vars(self.usage)}, "session_usage": {**vars(whole)} if whole else None}


CONTRACT = ("verdict", "final_text", "session_id", "usage", "failure", "resets_at", "denied_actions")

# The names a failed run can bear, and whether trying the same again can help.
FAILURES: Mapping[str, bool] = {name: failure.transient for name, failure in TABLE.items()}

MOST = 1e12  # of tokens or dollars: beyond that nobody counts


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST


_FAILED_STEP = {
    "prepare": "prepare_failed",
    "agent": "cli_failed",
    "validate": "validation_failed",
    "deliver": "push_refused",
}


_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def slug(task_id: str) -> str:
    """A task id where only [A-Za-z0-9._-] is safe, at most 100 of it: `acme/widgets#12` -> `acme-widgets-12`."""
    return _UNSAFE.sub("-", task_id).strip("-.")[-100:]


def run_name(task_pk: int, task_id: str, number: int) -> str:
    """The run's folder on its host. The task's key keeps two names with one slug apart."""
    return f"{slug(task_id)}-t{task_pk}.{number}"


def judge(number: int, result: Mapping[str, Any], outcome: Outcome) -> Fact:
    """The one fact that the end of a run amounts to.

    `result` is the supervisor's result.json, `outcome` the parser's reading of the CLI's output. A run that
    the fleet cancelled becomes a failure, which the task, already cancelled, rejects.
    """
    detail = {
        "pushed": bool(result.get("pushed")),
        "head": result.get("head"),
        "commits": list(result.get("commits") or []),
        "session": outcome.session_id,
        "summary": (outcome.final_text or "")[:4000],
    }
    failure = _failure(result, outcome)
    if failure is None:
        unreadable = {"unreadable": True} if outcome.verdict is Verdict.UNKNOWN else {}
        return Fact(FactKind.FINISHED, detail | unreadable, run=number)
    if failure == "lost":
        return Fact(FactKind.EXPIRED, {"reason": "lost", "why": _why(result, failure, outcome)}, run=number)
    reason = "cancelled" if result.get("end") == "cancelled" else failure
    told = detail | {
        "reason": reason,
        "why": _why(result, failure, outcome),
        "transient": FAILURES.get(failure, False),
    }
    if failure == "budget":
        return Fact(FactKind.LIMIT_REACHED, told | {"reason": "budget", "until": outcome.resets_at}, run=number)
    if outcome.verdict is Verdict.LIMITED and reason != "cancelled":
        return Fact(FactKind.LIMIT_REACHED, told | {"reason": "limit", "until": outcome.resets_at}, run=number)
    return Fact(FactKind.FAILED, told, run=number)


def may_have_delivered(result: Mapping[str, Any]) -> bool:
    """Whether a run that was lost can have pushed: it had come to its last step, or nobody knows how far it came."""
    return result.get("step") in (None, "deliver")


def _failure(result: Mapping[str, Any], outcome: Outcome) -> str | None:
    """The name of what went wrong, or None: the step that failed, a failed validation, the CLI's own word."""
    end = result.get("end")
    if end in ("timed_out", "silent", "lost"):
        return str(end)
    if end == "failed" and result.get("failure") in FAILURES:  # the host's own word for it
        return str(result["failure"])
    if end == "failed" and result.get("step") != "agent":
        return _FAILED_STEP.get(str(result.get("step")), "cli_failed")
    if end != "finished" or outcome.verdict in (Verdict.FAILED, Verdict.LIMITED, Verdict.KILLED):
        return outcome.failure if outcome.failure in FAILURES else "cli_failed"
    if any(check.get("exit_code") != 0 for check in result.get("validation") or []):
        return "validation_failed"
    return None


def _why(result: Mapping[str, Any], failure: str, outcome: Outcome) -> str:
    """The failed check with its last lines, the CLI's own words, or what the supervisor saw: whatever says most."""
    checks = result.get("validation") or []
    broken = next((check for check in checks if check.get("exit_code") != 0), None)
    if failure == "validation_failed" and broken:
        return f"`{broken['command']}` ended with {broken['exit_code']}:\n{broken.get('tail', '')[-1500:]}"
    if failure == outcome.failure and outcome.error:
        return f"{TABLE[failure].meaning}: {outcome.error[:1500]}"
    return str(result.get("reason") or f"the CLI ended with exit code {result.get('exit_code')}")

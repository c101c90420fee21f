"""Hears what agents report: how far they are, what they print, and their receipts, whose claims are checked first."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.domain.errors import Kind, Refused
from app.domain.failures import LIMITS
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import FAILURES, Outcome, Usage, Verdict
from app.ports import Fleet
from app.services import facts
from app.services.agents import leases
from app.services.agents.claim_checks import ClaimChecks, Json
from app.services.agents.leases import Held
from app.services.outbox.pull_requests import checked
from app.services.runs import report
from app.store import runs, views
from app.store.engine import reading


def running(fleet: Fleet, agent_id: str, told: Json) -> Held:
    """The agent works on a task (task_id, lease?, message?, progress?): confirmed, or seen alive again, or ended where
    its budget is used up. What has ended meanwhile is left as it is. Raises Refused."""
    with reading(fleet.engine) as conn:
        held = leases.owned(conn, agent_id, told["task_id"], told.get("lease"))
    if held.run.ended_at is None:
        report.told(fleet, held.run, told.get("message"), told.get("progress"))
    return held


def failed(fleet: Fleet, agent_id: str, told: Json) -> Held:
    """The agent gives up (task_id, lease?, message?): an attempt is spent, and the task is tried again while there are
    retries left. Raises Refused."""
    return complete(fleet, agent_id, {
        "task_id": told["task_id"], "lease": told.get("lease"), "status": "failed", "error": told.get("message"),
    })  # fmt: skip


def log(fleet: Fleet, agent_id: str, told: Json) -> tuple[int, bool]:
    """Bytes of output (task_id, lease, stream, offset, data). Returns the offset that is wanted next and whether this
    piece left a gap, and was not taken. Raises Refused."""
    with reading(fleet.engine) as conn:
        held = leases.owned(conn, agent_id, told["task_id"], told["lease"])
    size = report.log(fleet, held.run, told["stream"], told["offset"], told["data"]).end
    return size, told["offset"] > size


def complete(fleet: Fleet, agent_id: str, receipt: Json) -> Held:
    """A receipt: task_id, status (completed, failed, partial), lease?, summary?, error?, artifacts?, duration_seconds?,
    usage?, checks?, session?, cli_version?, failure?, resets_at?. Every claim is checked on the forge before it counts;
    the same receipt again changes nothing but that it may bring the checks that were not told before. Raises Refused,
    `invalid` naming a claim that does not hold."""
    with reading(fleet.engine) as conn:
        held = leases.owned(conn, agent_id, receipt["task_id"], receipt.get("lease"))
    if held.run.ended_at:
        return _checked_late(fleet, _said_before(held, receipt), receipt)
    claims = ClaimChecks(fleet, held.task)
    claims.commits = [one["sha"] for one in receipt.get("artifacts") or [] if one["type"] == "commit"]
    artifacts = [claims.check(one) for one in receipt.get("artifacts") or []]
    head = claims.head() if receipt["status"] == "completed" else None
    if claims.pull and head is not None:
        claims.keep_off(claims.pull)
    task = held.task
    if claims.pull and head not in (None, task.head):
        known = {"number": claims.pull.number, "title": claims.pull.title, "url": claims.pull.url, "head": head}
        task = facts.record_if_news(fleet, task, Fact(FactKind.PULL_OPENED, known, run=held.run.number))
    result = _result(receipt, artifacts, head)
    if report.ended(fleet, held.run, result, _outcome(receipt), task):
        return Held(task, replace(held.run, end=result["end"], result=result))
    with fleet.engine.begin() as conn:  # it ended while we looked: by this receipt, by another, or it was lost
        return _said_before(leases.owned(conn, agent_id, receipt["task_id"], held.run.number), receipt)


def notice(fleet: Fleet, held: Held) -> str | None:
    """What keeps finished work from being more than work in progress, and what helps; None where nothing does."""
    if held.run.end != "finished" or not held.task.wants_pull or (held.run.result or {}).get("checks"):
        return None
    with fleet.engine.begin() as conn:
        wanted = views.brief(conn, held.task.id)["validation"]
    if not wanted:
        return None
    return (
        f"The receipt tells of no checks, and this task has {len(wanted)}: its pull request is marked `WIP:` until "
        "they are told. Run the commands in `checks` and send the same receipt again with how each ended; or let "
        "somebody who has looked take `WIP:` off its title."
    )


def _checked_late(fleet: Fleet, held: Held, receipt: Json) -> Held:
    """Checks that come after the receipt: a pull request that is ours is no longer work in progress."""
    checks = list(receipt.get("checks") or [])
    if not checks or held.run.end != "finished":
        return held
    failed = next((one["command"] for one in checks if one["exit_code"]), None)
    if failed:
        raise Refused(Kind.INVALID, f"checks: {failed!r} failed, so the pull request stays as it is.")
    with fleet.engine.begin() as conn:
        runs.checked(conn, held.run.id, checks)
    checked(fleet, held.task)
    return Held(held.task, replace(held.run, result={**(held.run.result or {}), "checks": checks}))


def _said_before(held: Held, receipt: Json) -> Held:
    """The same receipt twice is answered the same way twice; another one comes too late."""
    if (held.run.result or {}).get("receipt_sha256") != _fingerprint(receipt):
        ended = held.run.end
        raise Refused(Kind.STALE, f"{held.task.task_id}: run {held.run.number} has ended already ({ended}).")
    return held


def _fingerprint(receipt: Json) -> str:
    """By what a receipt is known again: what it says, not when or how long."""
    said = [receipt["status"], receipt.get("artifacts") or [], receipt.get("summary"), receipt.get("error")]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _result(receipt: Json, artifacts: Sequence[Json], head: str | None) -> dict[str, Any]:
    """The receipt in the words of a host's result, so that both are judged alike."""
    done = receipt["status"] == "completed"
    return {
        "end": "finished" if done else "failed",
        "step": "agent",
        "reason": receipt.get("error") or (None if done else f"the agent reported '{receipt['status']}'"),
        "pushed": head is not None,
        "head": head,
        "commits": [one["sha"] for one in artifacts if one["type"] == "commit"],
        "validation": list(receipt.get("checks") or []) if done else [],
        "checks": list(receipt.get("checks") or []),
        "artifacts": list(artifacts),
        "duration_seconds": receipt.get("duration_seconds"),
        "cli_version": receipt.get("cli_version"),
        "receipt_sha256": _fingerprint(receipt),
    }


def _outcome(receipt: Json) -> Outcome:
    return Outcome(
        verdict=_verdict(receipt),
        final_text=receipt.get("summary"),
        session_id=receipt.get("session"),
        usage=Usage(**{name: (receipt.get("usage") or {}).get(name) for name in Usage.__dataclass_fields__}),
        failure=_failure(receipt),
        resets_at=receipt.get("resets_at"),
    )


def _verdict(receipt: Json) -> Verdict:
    if receipt["status"] == "completed":
        return Verdict.SUCCEEDED
    return Verdict.LIMITED if receipt.get("failure") in ("limit", *LIMITS) else Verdict.FAILED


def _failure(receipt: Json) -> str | None:
    if receipt["status"] == "completed":
        return None
    told = receipt.get("failure")
    return "partial" if receipt["status"] == "partial" else told if told in FAILURES else "agent_failed"

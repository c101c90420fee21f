"""Applies what agents report: progress, logs, and receipts, after checking their claims on the forge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.domain.agent_report import AgentReceipt, LogUpload, StatusReport
from app.domain.errors import Kind, Refused
from app.domain.failures import LIMITS
from app.domain.lifecycle import Fact, FactKind
from app.domain.run import FAILURES, Outcome, Verdict
from app.domain.task import Task
from app.ports import Fleet
from app.services import facts
from app.services.agents import leases
from app.services.agents.claim_checks import CheckedArtifact, ClaimChecks
from app.services.agents.leases import Held
from app.services.outbox.open_pull_request import mark_checked
from app.services.runs import report
from app.store import runs, task_details
from app.store.engine import reading_connection


def running(fleet: Fleet, agent_id: str, told: StatusReport) -> Held:
    """Confirm the task, or renew its lease; end the run if its budget is used up. A run that has ended stays as it is.

    Raises Refused.
    """
    with reading_connection(fleet.engine) as conn:
        held = leases.owned(conn, agent_id, told.task_id, told.lease)
    if held.run.ended_at is None:
        report.record_progress(fleet, held.run, told.message, told.progress)
    return held


def failed(fleet: Fleet, agent_id: str, told: StatusReport) -> Held:
    """The agent gives up: the attempt counts, and the task is retried while retries are left. Raises Refused."""
    return complete(fleet, agent_id, AgentReceipt(told.task_id, "failed", told.lease, error=told.message))


def log(fleet: Fleet, agent_id: str, piece: LogUpload) -> tuple[int, bool]:
    """Append to the log. Returns the offset wanted next, and True if the piece left a gap and was dropped.

    Raises Refused.
    """
    with reading_connection(fleet.engine) as conn:
        held = leases.owned(conn, agent_id, piece.task_id, piece.lease)
    size = report.log(fleet, held.run, piece.stream, piece.offset, piece.data).end
    return size, piece.offset > size


def complete(fleet: Fleet, agent_id: str, receipt: AgentReceipt) -> Held:
    """End the run with a receipt. Every claim is checked on the forge before it counts.

    The same receipt again changes nothing, except that it may add checks. Raises Refused; `invalid` names a claim that
    does not hold.
    """
    with reading_connection(fleet.engine) as conn:
        held = leases.owned(conn, agent_id, receipt.task_id, receipt.lease)
    if held.run.ended_at:
        return _add_checks(fleet, _check_is_repeated(held, receipt), receipt)
    claim_checks = ClaimChecks(fleet, held.task)
    claim_checks.commits = [one.sha for one in receipt.artifacts if one.type == "commit" and one.sha]
    artifacts = [claim_checks.check(one) for one in receipt.artifacts]
    head = claim_checks.head() if receipt.is_completed else None
    task = _adopt_pull(fleet, held, claim_checks, head)
    result = _result(receipt, artifacts, head)
    if report.ended(fleet, held.run, result, _outcome(receipt), task):
        return Held(task, replace(held.run, end=result["end"], result=result))
    with fleet.engine.begin() as conn:  # it ended meanwhile: by this receipt, by another, or it was lost
        return _check_is_repeated(leases.owned(conn, agent_id, receipt.task_id, held.run.number), receipt)


def notice(fleet: Fleet, held: Held) -> str | None:
    """Why the pull request of finished work is marked `WIP:`, and how to change that; None if it is not."""
    if held.run.end != "finished" or not held.task.wants_pull or (held.run.result or {}).get("checks"):
        return None
    with fleet.engine.begin() as conn:
        wanted = task_details.get(conn, held.task.id).validation
    if not wanted:
        return None
    return (
        f"The receipt reports no checks, and this task has {len(wanted)}: its pull request is marked `WIP:` until they "
        "are reported. Run the commands in `checks` and send the same receipt again with how each ended; or let a "
        "person who has reviewed the work remove `WIP:` from its title."
    )


def _adopt_pull(fleet: Fleet, held: Held, claim_checks: ClaimChecks, head: str | None) -> Task:
    """Record the pull request that the agent opened, if it is new. Raises Refused if it touches forbidden paths."""
    task, pull = held.task, claim_checks.pull
    if pull is None or head is None:
        return task
    claim_checks.refuse_forbidden_paths(pull)
    if head == task.head:
        return task
    known = {"number": pull.number, "title": pull.title, "url": pull.url, "head": head}
    return facts.record_if_news(fleet, task, Fact(FactKind.PULL_OPENED, known, run=held.run.number))


def _add_checks(fleet: Fleet, held: Held, receipt: AgentReceipt) -> Held:
    """Add checks that were missing in the receipt: our own pull request is then no longer work in progress."""
    if not receipt.checks or held.run.end != "finished":
        return held
    failed = next((one["command"] for one in receipt.checks if one["exit_code"]), None)
    if failed:
        raise Refused(Kind.INVALID, f"checks: {failed!r} failed, so the pull request stays as it is.")
    checks = list(receipt.checks)
    with fleet.engine.begin() as conn:
        runs.record_checks(conn, held.run.id, checks)
    mark_checked(fleet, held.task)
    return Held(held.task, replace(held.run, result={**(held.run.result or {}), "checks": checks}))


def _check_is_repeated(held: Held, receipt: AgentReceipt) -> Held:
    """Raises Refused(stale) unless the run ended by the same receipt."""
    if (held.run.result or {}).get("receipt_sha256") != receipt.fingerprint:
        ended = held.run.end
        raise Refused(Kind.STALE, f"{held.task.task_id}: run {held.run.number} has ended already ({ended}).")
    return held


def _result(receipt: AgentReceipt, artifacts: Sequence[CheckedArtifact], head: str | None) -> dict[str, Any]:
    """The receipt in the form of a host's result, so that both are judged alike."""
    is_done, checks = receipt.is_completed, list(receipt.checks)
    return {
        "end": "finished" if is_done else "failed",
        "step": "agent",
        "reason": receipt.error or (None if is_done else f"the agent reported '{receipt.status}'"),
        "pushed": head is not None,
        "head": head,
        "commits": [one.artifact.sha for one in artifacts if one.artifact.type == "commit"],
        "validation": checks if is_done else [],
        "checks": checks,
        "artifacts": [one.as_json() for one in artifacts],
        "duration_seconds": receipt.duration_seconds,
        "cli_version": receipt.cli_version,
        "receipt_sha256": receipt.fingerprint,
    }


def _outcome(receipt: AgentReceipt) -> Outcome:
    return Outcome(
        verdict=_verdict(receipt),
        final_text=receipt.summary,
        session_id=receipt.session,
        usage=receipt.usage,
        failure=_failure(receipt),
        resets_at=receipt.resets_at,
    )


def _verdict(receipt: AgentReceipt) -> Verdict:
    if receipt.is_completed:
        return Verdict.SUCCEEDED
    return Verdict.LIMITED if receipt.failure in ("limit", *LIMITS) else Verdict.FAILED


def _failure(receipt: AgentReceipt) -> str | None:
    if receipt.is_completed:
        return None
    known = receipt.failure if receipt.failure in FAILURES else "agent_failed"
    return "partial" if receipt.status == "partial" else known

"""A run's end in the contract's words: what the supervisor and the CLI say, judged, as a receipt."""

from typing import Any

from app.domain.lifecycle import FactKind
from app.domain.run import Outcome, judge
from workers.agent import boot_clock
from workers.agent.leases import Hold

Json = dict[str, Any]
MOST_COMMITS = 50
LONGEST = 20_000


def of(hold: Hold, result: Json, outcome: Outcome) -> Json:
    """The receipt of a run that has ended. The forge credentials' owner claims only what was pushed."""
    fact = judge(hold.lease, result, outcome)
    told: Json = {
        "lease": hold.lease,
        "duration_seconds": round(max(0.0, boot_clock.now() - hold.began), 3),
        "summary": (outcome.final_text or "")[:LONGEST],
        "artifacts": _artifacts(hold, result),
        "checks": [_check(one) for one in (result.get("validation") or [])][:100],
        "usage": outcome.as_json()["usage"],
        "session": outcome.session_id,
    }
    if fact.kind is FactKind.FINISHED and not _is_unreadable(hold, fact.detail):
        return told | {"status": "completed"}
    why = fact.detail.get("why") or "nobody could read what the CLI printed"
    return told | {
        "status": "failed",
        "error": why[:LONGEST],
        "failure": "unreadable" if fact.kind is FactKind.FINISHED else fact.detail.get("reason"),
        "resets_at": fact.detail.get("until"),
    }


def lost(hold: Hold, why: str, failure: str = "lost") -> Json:
    """The receipt of a run that there is nothing to say of."""
    return {"lease": hold.lease, "status": "failed", "error": why, "failure": failure}


def refused(letter: Json, why: str) -> Json:
    """The receipt that takes the place of one whose claims did not hold."""
    kept = {name: letter[name] for name in ("lease", "duration_seconds", "usage") if name in letter}
    return kept | {"status": "failed", "error": f"The fleet did not take the receipt: {why}", "again": True}


def _is_unreadable(hold: Hold, detail: Any) -> bool:
    """Without a pull request the CLI's own word is all there is, and it must have been understood."""
    return bool(detail.get("unreadable")) and not hold.work["wants_pull_request"]


def _artifacts(hold: Hold, result: Json) -> list[Json]:
    if not result.get("pushed"):
        return []
    commits = [{"type": "commit", "sha": sha} for sha in result.get("commits") or []][-MOST_COMMITS:]
    ref = str((hold.work.get("push") or {}).get("ref") or "refs/heads/")
    return ([{"type": "branch", "ref": hold.work["branch_name"]}] if ref.startswith("refs/heads/") else []) + commits


def _check(one: Json) -> Json:
    return {**one, "command": str(one["command"])[:2000]}

"""Reads Codex's JSONL: `thread.started` names the session, `turn.completed` or `turn.failed` ends the turn."""

import json
from collections.abc import Iterator
from typing import Any

from app.domain.run import Outcome, Usage, Verdict

NAME = "codex-jsonl"
LIMIT_WORDS = ("hit your usage limit", "Quota exceeded")


def parse(stdout: bytes, exit_code: int | None) -> Outcome:
    """Success needs the terminal event, its word, and exit code 0; output without a terminal event was cut off."""
    events = list(_events(stdout))
    session = next((e.get("thread_id") for e in events if e.get("type") == "thread.started"), None)
    text = next((e["item"].get("text") for e in reversed(events) if _is_message(e)), None)
    last = next((e for e in reversed(events) if e.get("type") in ("turn.completed", "turn.failed")), None)
    if last is None:
        killed = exit_code is None or exit_code >= 128
        return Outcome(
            Verdict.KILLED if killed else Verdict.UNKNOWN if exit_code == 0 else Verdict.FAILED,
            text,
            session,
            failure="unreadable",
        )
    if last["type"] == "turn.failed":
        error = last.get("error")
        said = str(error.get("message", "") if isinstance(error, dict) else error or "")
        limited = any(word in said for word in LIMIT_WORDS)
        return Outcome(Verdict.LIMITED if limited else Verdict.FAILED, said or text, session, failure="cli_failed")
    return Outcome(Verdict.SUCCEEDED if exit_code == 0 else Verdict.FAILED, text, session, _usage(last))


def _events(stdout: bytes) -> Iterator[dict[str, Any]]:
    """Every whole line that is a JSON object; what is not is left out."""
    for line in stdout.splitlines():
        if line.startswith(b"{"):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            yield event


def _is_message(event: dict[str, Any]) -> bool:
    item = event.get("item")
    return event.get("type") == "item.completed" and isinstance(item, dict) and item.get("type") == "agent_message"


def _usage(event: dict[str, Any]) -> Usage:
    used = event.get("usage")
    if not isinstance(used, dict):
        return Usage()
    return Usage(used.get("input_tokens"), used.get("cached_input_tokens"), used.get("output_tokens"))

"""Cleans an outcome: bounded text and counts that a database can hold."""

from dataclasses import replace
from math import isfinite
from typing import Any

from app.clis.command_line import valid_session
from app.domain.run import Outcome, Usage


def sanitize(outcome: Outcome) -> Outcome:
    """An outcome that can be stored and told, whatever a CLI printed: texts are texts without half characters, counts
    are finite numbers, and a session id can be no option of the next call."""
    session = valid_session(outcome.session_id)
    whole = outcome.session_usage and sanitize_usage(outcome.session_usage)
    texts: dict[str, Any] = {name: _text(getattr(outcome, name)) for name in ("final_text", "error", "warning")}
    denied = tuple(text for one in outcome.denied_actions if (text := _text(one)))
    return replace(
        outcome,
        session_id=session,
        usage=sanitize_usage(outcome.usage),
        session_usage=whole,
        denied_actions=denied,
        **texts,
    )


def sanitize_json(value: Any) -> Any:
    """Nested texts and numbers that can be stored."""
    if isinstance(value, dict):
        return {str(_text(str(name))): sanitize_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(inner) for inner in value]
    return (
        _text(value) if isinstance(value, str) else None if isinstance(value, float) and not isfinite(value) else value
    )


def sanitize_usage(usage: Usage) -> Usage:
    return Usage(**{name: _number(value) for name, value in vars(usage).items()})


def _text(value: object) -> str | None:
    return value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else None


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None

"""Sanitizes outcomes: whatever a CLI printed, texts and counts are such that Postgres can store them."""

from dataclasses import replace
from math import isfinite
from typing import Any

from app.clis.command_line import valid_session
from app.domain.run import Outcome, Usage


def sanitize(outcome: Outcome) -> Outcome:
    """No NUL and no lone surrogate in a text, finite counts only, and a session id that is safe as an argument."""
    return replace(
        outcome,
        final_text=_text(outcome.final_text),
        error=_text(outcome.error),
        warning=_text(outcome.warning),
        session_id=valid_session(outcome.session_id),
        usage=sanitize_usage(outcome.usage),
        session_usage=outcome.session_usage and sanitize_usage(outcome.session_usage),
        denied_actions=tuple(text for action in outcome.denied_actions if (text := _text(action))),
    )


def sanitize_json(value: Any) -> Any:
    """The same for JSON of any depth."""
    if isinstance(value, dict):
        return {str(_text(str(name))): sanitize_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return _text(value) if isinstance(value, str) else value


def sanitize_usage(usage: Usage) -> Usage:
    return Usage(**{name: _count(value) for name, value in vars(usage).items()})


def _text(value: object) -> str | None:
    return value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else None


def _count(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None

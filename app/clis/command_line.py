"""Fills in a CLI's template: the argument vector, environment and session of one run."""

import re
from typing import Any

from app.clis.catalog import Template

SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


def fill_template(template: Template, session: str | None) -> dict[str, Any]:
    """How the host starts the CLI, afresh or to go on with a session; the prompt apart. The flags that depend on its
    version are chosen there."""
    resume = session and template.get("resume")
    argv = [part.replace("{session_id}", session or "") for part in (resume or template["argv"])]
    return {
        "argv": argv,
        "flags": _flags(template),
        "version": list(template.get("version") or []),
        "env": dict(template.get("env") or {}),
        "prompt_via": template["prompt"],
        "final": list(template.get("final") or []),
        "session_file": template.get("session_file"),
        "apart": template.get("apart", True),
        "checks_apart": template.get("checks_apart", False),
    }


def _flags(template: Template) -> list[dict[str, Any]]:
    """Those of its versions, and the model's name as this CLI wants it."""
    model = str(template.get("model") or "")
    named = [word.replace("{model}", model) for word in template.get("model_flag") or []]
    return [*(template.get("flags") or []), *([{"argv": named}] if model and named else [])]


def valid_session(told: object) -> str | None:
    return told if isinstance(told, str) and SESSION.match(told) else None

"""Fills in a CLI's template: the arguments, environment and session of one run."""

import re
from collections.abc import Mapping
from typing import TypedDict

from app.clis.template import CliTemplate

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


class FilledTemplate(TypedDict):
    """The `agent` object of a start request, without the prompt; the fields are those of CliTemplate."""

    argv: list[str]
    flags: list[dict[str, object]]
    version: list[str]
    env: dict[str, str]
    prompt_via: str
    final: list[str]
    session_file: Mapping[str, object] | None
    apart: bool
    checks_apart: bool


def fill_template(template: CliTemplate, session: str | None) -> FilledTemplate:
    """The `agent` object of a start request, without the prompt. Resumes `session` if the CLI can.

    The host picks the flags, by the version it finds.
    """
    argv = template.resume if session and template.resume else template.argv
    return {
        "argv": [word.replace("{session_id}", session or "") for word in argv],
        "flags": [*map(dict, template.flags), *_model_flags(template)],
        "version": list(template.version),
        "env": dict(template.env),
        "prompt_via": template.prompt,
        "final": list(template.final),
        "session_file": template.session_file,
        "apart": template.apart,
        "checks_apart": template.checks_apart,
    }


def _model_flags(template: CliTemplate) -> list[dict[str, object]]:
    if not (template.model and template.model_flag):
        return []
    return [{"argv": [word.replace("{model}", template.model) for word in template.model_flag]}]


def valid_session(session: object) -> str | None:
    """A session id that is safe as an argument: no option, no path. None for anything else."""
    return session if isinstance(session, str) and _SESSION.match(session) else None

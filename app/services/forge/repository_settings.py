"""Loads the settings of a repository: fleet.toml's rule, with `.fleet.toml` and AGENTS.md of the default branch."""

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from app.config.cli_schemas import HooksSchema
from app.domain.repository import Rule
from app.domain.task_details import TaskSettings
from app.domain.visible_text import one_line
from app.ports import Forge, Repository

FILE, RULES = ".fleet.toml", "AGENTS.md"
_WORD = validate.Length(1, 500)
_NAME = validate.Regexp(r"[A-Za-z0-9_.-]{1,100}\Z")


@dataclass(frozen=True)
class Settings:
    """How a repository is worked on. `rules` is the text of AGENTS.md; `task` is what each new task keeps."""

    cli: str | None
    max_retries: int
    timeout_secs: int  # of one run
    validation: tuple[str, ...]  # commands that check the work
    task: TaskSettings
    rules: str


class _Limits(Schema):
    class Meta:
        unknown = RAISE

    max_retries = fields.Integer(strict=True, validate=validate.Range(0, 20))
    task_timeout_secs = fields.Integer(strict=True, validate=validate.Range(1, 7 * 86400))


class _File(Schema):
    class Meta:
        unknown = RAISE

    cli = fields.String(validate=_NAME)
    validation = fields.List(fields.String(validate=_WORD), validate=validate.Length(max=50))
    reviewers = fields.List(fields.String(validate=_NAME))
    forbidden_paths = fields.List(fields.String(validate=_WORD), validate=validate.Length(max=200))
    trailers = fields.List(fields.String(validate=validate.Regexp(r"[A-Za-z][A-Za-z-]*: [^\r\n]{1,200}\Z")))
    limits = fields.Nested(_Limits)
    hooks = fields.Nested(HooksSchema)


def load_settings(forge: Forge, repository: Repository, rule: Rule) -> Settings:
    """The settings in force. Both files are read from the default branch only, so a change to them counts
    when its pull request is merged."""
    text = forge.file(repository.full_name, repository.default_branch, FILE)
    own, faults = _parse(text) if text is not None else ({}, ())
    limits = own.get("limits", {})
    return Settings(
        cli=own.get("cli") or rule.cli,
        max_retries=min(limits.get("max_retries", rule.max_retries), rule.max_retries),
        timeout_secs=min(limits.get("task_timeout_secs", rule.task_timeout_secs), rule.task_timeout_secs),
        validation=tuple(dict.fromkeys([*rule.validation, *own.get("validation", [])])),
        task=TaskSettings(
            reviewers=tuple(own.get("reviewers") or rule.reviewers),
            forbidden_paths=tuple(own.get("forbidden_paths", [])),
            trailers=tuple(own.get("trailers", [])),
            faults=faults,
            flow=rule.flow,
            hooks=own.get("hooks", {}),
        ),
        rules=forge.file(repository.full_name, repository.default_branch, RULES) or "",
    )


def _parse(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a `.fleet.toml` says, and the faults because of which it is ignored."""
    try:
        return dict(_File().load(tomllib.loads(text))), ()
    except tomllib.TOMLDecodeError as error:
        return {}, (f"{FILE} is not TOML and was ignored: {one_line(str(error), 150)}",)
    except ValidationError as error:
        messages = re.sub(r"[{}\[\]']", "", str(error.messages))
        return {}, (f"{FILE} is invalid and was ignored: {one_line(messages, 150)}",)

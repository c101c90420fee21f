"""The terms on which a repository is worked on: fleet.toml's rule, and what the default branch says for itself."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from app.config.cli_schemas import HooksSchema
from app.domain.repository import Rule
from app.domain.visible_text import one_line
from app.ports import Forge, Repository

FILE, RULES = ".fleet.toml", "AGENTS.md"
_WORD = validate.Length(1, 500)


@dataclass(frozen=True)
class Settings:
    """`rules` is the text of AGENTS.md; `faults` are sentences about a `.fleet.toml` that could not be used."""

    cli: str | None
    max_retries: int
    timeout_secs: int
    validation: tuple[str, ...]
    reviewers: tuple[str, ...]
    forbidden_paths: tuple[str, ...] = ()
    trailers: tuple[str, ...] = ()
    rules: str = ""
    flow: str = "branch"
    hooks: Mapping[str, list[str]] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """What is kept with a task for later, as JSON."""
        kept = ("reviewers", "forbidden_paths", "trailers", "faults")
        return {name: list(getattr(self, name)) for name in kept} | {"flow": self.flow, "hooks": dict(self.hooks)}


class _Limits(Schema):
    class Meta:
        unknown = RAISE

    max_retries = fields.Integer(strict=True, validate=validate.Range(0, 20))
    task_timeout_secs = fields.Integer(strict=True, validate=validate.Range(1, 7 * 86400))


class _File(Schema):
    class Meta:
        unknown = RAISE

    cli = fields.String(validate=validate.Regexp(r"[A-Za-z0-9_.-]{1,100}\Z"))
    validation = fields.List(fields.String(validate=_WORD), validate=validate.Length(max=50))
    reviewers = fields.List(fields.String(validate=validate.Regexp(r"[A-Za-z0-9_.-]{1,100}\Z")))
    forbidden_paths = fields.List(fields.String(validate=_WORD), validate=validate.Length(max=200))
    trailers = fields.List(fields.String(validate=validate.Regexp(r"[A-Za-z][A-Za-z-]*: [^\r\n]{1,200}\Z")))
    limits = fields.Nested(_Limits)
    hooks = fields.Nested(HooksSchema)


def load_settings(forge: Forge, repository: Repository, rule: Rule) -> Settings:
    """The terms in force. Both files are read from the default branch alone: what a pull request changes in them counts
    when it is merged."""
    text = forge.file(repository.full_name, repository.default_branch, FILE)
    own, faults = _read(text) if text is not None else ({}, ())
    rules = forge.file(repository.full_name, repository.default_branch, RULES) or ""
    limits = own.get("limits", {})
    return Settings(
        cli=own.get("cli") or rule.cli,
        max_retries=min(limits.get("max_retries", rule.max_retries), rule.max_retries),
        timeout_secs=min(limits.get("task_timeout_secs", rule.task_timeout_secs), rule.task_timeout_secs),
        validation=tuple(dict.fromkeys([*rule.validation, *own.get("validation", [])])),
        reviewers=tuple(own.get("reviewers") or rule.reviewers),
        forbidden_paths=tuple(own.get("forbidden_paths", [])),
        trailers=tuple(own.get("trailers", [])),
        rules=rules,
        flow=rule.flow,
        hooks=own.get("hooks", {}),
        faults=faults,
    )


def _read(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        return dict(_File().load(tomllib.loads(text))), ()
    except tomllib.TOMLDecodeError as error:
        return {}, (f"{FILE} is not TOML and was left out: {one_line(str(error), 150)}",)
    except ValidationError as error:
        said = re.sub(r"[{}\[\]']", "", str(error.messages))
        return {}, (f"{FILE} cannot be used and was left out: {one_line(said, 150)}",)

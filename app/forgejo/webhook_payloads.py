"""Loads the JSON of webhook deliveries into typed payloads. Unknown fields and events are ignored."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from app.domain.errors import Kind, Refused
from app.ports import Account

LARGEST = 2**63 - 1  # the forge counts in 64 bits, and so do our rows
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z")
_SHA = re.compile(r"[0-9a-f]{7,64}\Z")


class InvalidPayload(Refused):
    """The body does not fit its event; str() says what is wrong."""

    def __init__(self, sentence: str) -> None:
        super().__init__(Kind.INVALID, sentence)


@dataclass(frozen=True)
class Permissions:
    push: bool | None


@dataclass(frozen=True)
class Repository:
    id: int
    full_name: str
    permissions: Permissions | None


@dataclass(frozen=True)
class Issue:
    number: int


@dataclass(frozen=True)
class Head:
    ref: str | None


@dataclass(frozen=True)
class Pull:
    number: int
    head: Head | None


@dataclass(frozen=True)
class Comment:
    id: int
    body: str | None
    created_at: str | None
    user: Account | None


@dataclass(frozen=True)
class IssueEvent:
    """An event about one issue or pull request."""

    action: str
    repository: Repository
    sender: Account | None
    issue: Issue | None
    pull_request: Pull | None
    comment: Comment | None
    is_pull: bool | None


@dataclass(frozen=True)
class Push:
    """A push, or a branch or tag that was created or deleted."""

    repository: Repository
    sender: Account | None
    ref: str
    ref_type: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ActionRun:
    repository: Repository
    trigger_user: Account | None
    commit_sha: str


@dataclass(frozen=True)
class ActionEvent:
    run: ActionRun


Payload = IssueEvent | Push | ActionEvent


def load_payload(event: str, body: bytes) -> Payload | None:
    """The payload of a delivery; None for an event that we do not use. Raises InvalidPayload."""
    schema = _SCHEMAS.get(event)
    if schema is None:
        return None
    try:
        payload: Payload = schema.load(json.loads(body))
    except ValidationError as error:
        raise InvalidPayload(f"invalid body of a {event} delivery: {error.messages}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(f"the body is not JSON: {error}") from error
    return payload


class _Schema(Schema):
    """Loads an object of the JSON into the dataclass `makes`."""

    makes: ClassVar[Callable[..., object]]

    class Meta:
        unknown = EXCLUDE

    @post_load
    def _make(self, given: Mapping[str, Any], **_: object) -> object:
        return type(self).makes(**given)


_ID = validate.Range(1, LARGEST)


class _PermissionsSchema(_Schema):
    makes = Permissions
    push = fields.Boolean(load_default=None, allow_none=True)


class _RepositorySchema(_Schema):
    makes = Repository
    id = fields.Integer(required=True, strict=True, validate=_ID)
    full_name = fields.String(required=True, validate=validate.Regexp(_NAME))
    permissions = fields.Nested(_PermissionsSchema, load_default=None, allow_none=True)


class _IssueSchema(_Schema):
    makes = Issue
    number = fields.Integer(required=True, strict=True, validate=_ID)


class _HeadSchema(_Schema):
    makes = Head
    ref = fields.String(load_default=None, allow_none=True, validate=validate.Predicate("isprintable"))


class _PullSchema(_Schema):
    makes = Pull
    number = fields.Integer(required=True, strict=True, validate=_ID)
    head = fields.Nested(_HeadSchema, load_default=None, allow_none=True)


class _AccountSchema(_Schema):
    makes = Account
    id = fields.Integer(load_default=0, strict=True, validate=validate.Range(-LARGEST, LARGEST))
    login = fields.String(load_default="")
    full_name = fields.String(load_default="")


class _CommentSchema(_Schema):
    makes = Comment
    id = fields.Integer(required=True, strict=True, validate=_ID)
    body = fields.String(load_default="", allow_none=True)
    created_at = fields.String(load_default=None, allow_none=True)
    user = fields.Nested(_AccountSchema, load_default=None, allow_none=True)


class _IssueEventSchema(_Schema):
    makes = IssueEvent
    action = fields.String(load_default="")
    repository = fields.Nested(_RepositorySchema, required=True)
    sender = fields.Nested(_AccountSchema, load_default=None, allow_none=True)
    issue = fields.Nested(_IssueSchema, load_default=None, allow_none=True)
    pull_request = fields.Nested(_PullSchema, load_default=None, allow_none=True)
    comment = fields.Nested(_CommentSchema, load_default=None, allow_none=True)
    is_pull = fields.Boolean(load_default=False, allow_none=True)


class _PushSchema(_Schema):
    makes = Push
    repository = fields.Nested(_RepositorySchema, required=True)
    sender = fields.Nested(_AccountSchema, load_default=None, allow_none=True)
    ref = fields.String(required=True, validate=validate.Predicate("isprintable"))
    ref_type = fields.String(load_default="branch", allow_none=True)
    before = fields.String(load_default="", allow_none=True)
    after = fields.String(load_default="", allow_none=True)


class _ActionRunSchema(_Schema):
    makes = ActionRun
    repository = fields.Nested(_RepositorySchema, required=True)
    trigger_user = fields.Nested(_AccountSchema, load_default=None, allow_none=True)
    commit_sha = fields.String(required=True, validate=validate.Regexp(_SHA))


class _ActionEventSchema(_Schema):
    makes = ActionEvent
    run = fields.Nested(_ActionRunSchema, required=True)


_ISSUE, _PUSH, _ACTION = _IssueEventSchema(), _PushSchema(), _ActionEventSchema()
_SCHEMAS: Mapping[str, Schema] = {
    **dict.fromkeys((
        "issues", "issue_label", "issue_assign", "issue_comment", "pull_request", "pull_request_sync",
        "pull_request_comment", "pull_request_review_request", "pull_request_review_approved",
        "pull_request_review_rejected", "pull_request_review_comment", "pull_request_approved", "pull_request_rejected",
    ), _ISSUE),
    **dict.fromkeys(("push", "create", "delete"), _PUSH),
    **dict.fromkeys(("action_run_success", "action_run_failure", "action_run_recover"), _ACTION),
}  # fmt: skip

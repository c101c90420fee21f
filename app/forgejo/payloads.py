"""A delivery read as a hint: which issue or pull request of which repository to look at."""

import json
from dataclasses import dataclass
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

LOOKED_AT = frozenset({
    "issues", "issue_label", "issue_assign", "issue_comment",
    "pull_request", "pull_request_sync", "pull_request_comment", "pull_request_review_request",
    "pull_request_review_approved", "pull_request_review_rejected", "pull_request_review_comment",
})  # fmt: skip

LARGEST = 2**63 - 1  # the forge counts in 64 bits, and so do our rows


class Unreadable(Exception):
    """The body is not what its event promises; str() says what was missing."""


@dataclass(frozen=True)
class Hint:
    """Where something happened. `is_pull` says what `number` counts; `branch` is a pull request's head."""

    repository_id: int
    full_name: str
    number: int
    is_pull: bool
    branch: str | None
    sender: str


class _Part(Schema):
    class Meta:
        unknown = EXCLUDE


class _Repository(_Part):
    id = fields.Integer(required=True, strict=True, validate=validate.Range(1, LARGEST))
    full_name = fields.String(required=True, validate=validate.Regexp(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z"))


class _Numbered(_Part):
    number = fields.Integer(required=True, strict=True, validate=validate.Range(1, LARGEST))


class _Head(_Part):
    ref = fields.String(load_default=None, allow_none=True, validate=validate.Predicate("isprintable"))


class _Pull(_Numbered):
    head = fields.Nested(_Head, load_default=None, allow_none=True)


class _Sender(_Part):
    login = fields.String(load_default="")


class _Delivery(_Part):
    repository = fields.Nested(_Repository, required=True)
    sender = fields.Nested(_Sender, load_default=dict, allow_none=True)
    issue = fields.Nested(_Numbered, load_default=None, allow_none=True)
    pull_request = fields.Nested(_Pull, load_default=None, allow_none=True)


def read(event: str, body: bytes) -> Hint | None:
    """The hint in a delivery, or None when its kind of event says nothing to us. Raises Unreadable."""
    if event not in LOOKED_AT:
        return None
    try:
        given: Any = _Delivery().load(json.loads(body))
    except ValidationError as error:
        raise Unreadable(f"the body of a {event} delivery lacks {error.messages}") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is not JSON: {error}") from error
    pull, issue = given["pull_request"], given["issue"]
    about = pull or issue
    if about is None:
        raise Unreadable(f"a {event} delivery without an issue or a pull request")
    return Hint(
        repository_id=given["repository"]["id"],
        full_name=given["repository"]["full_name"],
        number=about["number"],
        is_pull=pull is not None,
        branch=((pull or {}).get("head") or {}).get("ref"),
        sender=(given["sender"] or {}).get("login", ""),
    )

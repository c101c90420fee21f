"""Reads a delivery as a hint: what to look at on the forge, and no more. Unknown fields and events are let be.

Only a new comment is taken at its word, since a command is said once: its text, and its author's right to write,
which the forge puts there. Routed by the Event-Type header; the coarse one means different things by the same name.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from app.ports import Account

LONGEST_NAME = 200
LARGEST = 2**63 - 1  # the forge counts in 64 bits, and so do our rows
HEADS = "refs/heads/"
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z")
_SHA = re.compile(r"[0-9a-f]{7,64}\Z")

Json = Any


class Unreadable(Exception):
    """The body is not what its event promises; str() says what was missing."""


@dataclass(frozen=True)
class Said:
    """A comment that was just written. `may` is its author's right to write here, None where the forge did not say."""

    comment: int
    text: str
    may: bool | None
    at: str | None


@dataclass(frozen=True)
class Hint:
    """Where something happened: at an issue or a pull request by `number` (`is_pull` says which), at a `branch` alone,
    or at a commit that was checked (`sha`). `test` means that somebody tried the hook out. Our own echo, which comes
    with each write of ours, is worth a look only where an agent may have acted in our name: `echoes`."""

    repository_id: int
    full_name: str
    sender: Account
    number: int | None = None
    is_pull: bool = False
    branch: str | None = None
    sha: str | None = None
    said: Said | None = None
    test: bool = False
    echoes: bool = False

    @property
    def about(self) -> str:
        """What one look at the forge answers for all who say it: an issue, a branch with its pull request, a commit."""
        branch = "" if (self.branch or "refs/").startswith("refs/") else self.branch
        what = f"branch {branch}" if branch else f"{'pull' if self.is_pull else 'issue'} {self.number}"
        name = f"{self.repository_id} {what if self.number or branch else f'commit {self.sha}'}"
        return name if len(name) <= LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()


class _Part(Schema):
    class Meta:
        unknown = EXCLUDE


_ID = validate.Range(1, LARGEST)


class _Rights(_Part):
    push = fields.Boolean(load_default=None, allow_none=True)


class _Repository(_Part):
    id = fields.Integer(required=True, strict=True, validate=_ID)
    full_name = fields.String(required=True, validate=validate.Regexp(_NAME))
    permissions = fields.Nested(_Rights, load_default=dict, allow_none=True)


class _Numbered(_Part):
    number = fields.Integer(required=True, strict=True, validate=_ID)


class _Head(_Part):
    ref = fields.String(load_default=None, allow_none=True, validate=validate.Predicate("isprintable"))


class _Pull(_Numbered):
    head = fields.Nested(_Head, load_default=None, allow_none=True)


class _Account(_Part):
    id = fields.Integer(load_default=0, strict=True, validate=validate.Range(-LARGEST, LARGEST))
    login = fields.String(load_default="")
    full_name = fields.String(load_default="")


class _Comment(_Part):
    id = fields.Integer(required=True, strict=True, validate=_ID)
    body = fields.String(load_default="", allow_none=True)
    created_at = fields.String(load_default=None, allow_none=True)
    user = fields.Nested(_Account, load_default=dict, allow_none=True)


class _AboutOne(_Part):
    action = fields.String(load_default="")
    repository = fields.Nested(_Repository, required=True)
    sender = fields.Nested(_Account, load_default=dict, allow_none=True)
    issue = fields.Nested(_Numbered, load_default=None, allow_none=True)
    pull_request = fields.Nested(_Pull, load_default=None, allow_none=True)
    comment = fields.Nested(_Comment, load_default=None, allow_none=True)
    is_pull = fields.Boolean(load_default=False, allow_none=True)


class _Push(_Part):
    repository = fields.Nested(_Repository, required=True)
    sender = fields.Nested(_Account, load_default=dict, allow_none=True)
    ref = fields.String(required=True, validate=validate.Predicate("isprintable"))
    ref_type = fields.String(load_default="branch", allow_none=True)
    before = fields.String(load_default="", allow_none=True)
    after = fields.String(load_default="", allow_none=True)


class _Run(_Part):
    repository = fields.Nested(_Repository, required=True)
    trigger_user = fields.Nested(_Account, load_default=dict, allow_none=True)
    commit_sha = fields.String(required=True, validate=validate.Regexp(_SHA))


class _Action(_Part):
    run = fields.Nested(_Run, required=True)


def read(event: str, body: bytes) -> Hint | None:
    """The hint in a delivery, or None when its kind of event says nothing to us. Raises Unreadable."""
    known = _EVENTS.get(event)
    if known is None:
        return None
    schema, reader = known
    try:
        given: Json = schema.load(json.loads(body))
    except ValidationError as error:
        raise Unreadable(f"the body of a {event} delivery lacks {error.messages}") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is not JSON: {error}") from error
    return reader(event, given)


def home(body: bytes) -> str:
    """The host (and port) of the forge that a delivery says it is from; empty where it does not."""
    try:
        given: Json = json.loads(body)
        where = given.get("repository") or (given.get("run") or {}).get("repository") or {}
        return urlsplit(str(where.get("html_url") or "")).netloc.lower()
    except (ValueError, RecursionError, AttributeError):
        return ""


def _about_one(event: str, given: Json) -> Hint:
    pull, issue = given["pull_request"], given["issue"]
    about = pull or issue
    if about is None:
        raise Unreadable(f"a {event} delivery without an issue or a pull request")
    return Hint(
        **_where(given["repository"], given["sender"]),
        number=about["number"],
        is_pull=pull is not None or bool(given["is_pull"]) or event == "pull_request_comment",
        branch=((pull or {}).get("head") or {}).get("ref"),
        said=_said(event, given),
        echoes=event in ("pull_request", "pull_request_sync"),
    )


def _said(event: str, given: Json) -> Said | None:
    """A comment that was just written by the one who sent it; what is edited later is no command."""
    comment = given["comment"]
    if event not in _COMMENTS or comment is None or given["action"] != "created":
        return None
    sender = (given["sender"] or {}).get("id")
    if not sender or (comment["user"] or {}).get("id") != sender:
        return None
    may = (given["repository"]["permissions"] or {}).get("push")
    return Said(comment["id"], comment["body"] or "", may, comment["created_at"])


def _push(_: str, given: Json) -> Hint:
    """A push, or a branch made or deleted; some forges give its name without `refs/heads/`."""
    is_test = bool(given["before"]) and given["before"] == given["after"]
    ref = given["ref"]
    is_branch = given["ref_type"] == "branch" and (ref.startswith(HEADS) or not ref.startswith("refs/"))
    branch = ref.removeprefix(HEADS) if is_branch else None
    return Hint(**_where(given["repository"], given["sender"]), branch=branch, test=is_test, echoes=True)


def _checked(_: str, given: Json) -> Hint:
    run = given["run"]
    return Hint(**_where(run["repository"], run["trigger_user"]), sha=run["commit_sha"], echoes=True)


def _where(repository: Json, sender: Json) -> dict[str, Any]:
    known = sender or {}
    who = Account(known.get("id", 0), known.get("login", ""), known.get("full_name", ""))
    return {"repository_id": repository["id"], "full_name": repository["full_name"], "sender": who}


_COMMENTS = ("issue_comment", "pull_request_comment")
_ONE = (_AboutOne(), _about_one)
_EVENTS: Mapping[str, tuple[Schema, Callable[[str, Json], Hint]]] = {
    **dict.fromkeys((
        "issues", "issue_label", "issue_assign", "issue_comment", "pull_request", "pull_request_sync",
        "pull_request_comment", "pull_request_review_request", "pull_request_review_approved",
        "pull_request_review_rejected", "pull_request_review_comment", "pull_request_approved", "pull_request_rejected",
    ), _ONE),
    **dict.fromkeys(("push", "create", "delete"), (_Push(), _push)),
    **dict.fromkeys(("action_run_success", "action_run_failure", "action_run_recover"), (_Action(), _checked)),
}  # fmt: skip

"""Turns a webhook delivery into a hint: what to look up on the forge.

Only a new comment is used as it is, with its text and its author's permission to write, since a command is given once.
Events are told apart by the Event-Type header; the Event header uses one name for several of them.
"""

import hashlib
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.forgejo.webhook_payloads import ActionEvent, InvalidPayload, IssueEvent, Push, load_payload
from app.ports import Account

LONGEST_NAME = 200
HEADS = "refs/heads/"
COMMENT_EVENTS = ("issue_comment", "pull_request_comment")
NOBODY = Account(0, "")


@dataclass(frozen=True)
class NewComment:
    """A comment that was just written.

    `may_write` says whether its author has write permission, None if the forge does not say. `created_at` is the
    forge's own text.
    """

    id: int
    text: str
    may_write: bool | None
    created_at: str | None


@dataclass(frozen=True)
class Hint:
    """Where something happened: the issue or pull request `number`, a `branch`, or a commit that was checked (`sha`).

    `is_test` marks a test delivery of the hook. `own_counts` says that the delivery counts even if the bot itself
    caused it, since an agent may have acted in its name. Other deliveries about our own writes are ignored.
    """

    repository_id: int
    full_name: str
    sender: Account
    number: int | None = None
    is_pull: bool = False
    branch: str | None = None
    sha: str | None = None
    comment: NewComment | None = None
    is_test: bool = False
    own_counts: bool = False

    @property
    def subject(self) -> str:
        """The name of an issue, of a branch with its pull request, or of a commit. Deliveries with the same subject
        need one lookup."""
        branch = "" if (self.branch or "refs/").startswith("refs/") else self.branch
        what = f"branch {branch}" if branch else f"{'pull' if self.is_pull else 'issue'} {self.number}"
        name = f"{self.repository_id} {what if self.number or branch else f'commit {self.sha}'}"
        return name if len(name) <= LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()


def parse_delivery(event: str, body: bytes) -> Hint | None:
    """The hint in a delivery; None for an event that we do not use. Raises InvalidPayload."""
    payload = load_payload(event, body)
    if payload is None:
        return None
    if isinstance(payload, Push):
        return _push_hint(payload)
    return _issue_hint(event, payload) if isinstance(payload, IssueEvent) else _action_hint(payload)


def forge_address(body: bytes) -> str:
    """The host and port of the forge that a delivery names; empty if it names none."""
    try:
        given = json.loads(body)
        repository = given.get("repository") or (given.get("run") or {}).get("repository") or {}
        return urlsplit(str(repository.get("html_url") or "")).netloc.lower()
    except (ValueError, RecursionError, AttributeError):
        return ""


def _issue_hint(event: str, given: IssueEvent) -> Hint:
    pull = given.pull_request
    about = pull or given.issue
    if about is None:
        raise InvalidPayload(f"a {event} delivery without an issue or a pull request")
    return Hint(
        given.repository.id,
        given.repository.full_name,
        given.sender or NOBODY,
        number=about.number,
        is_pull=pull is not None or bool(given.is_pull) or event == "pull_request_comment",
        branch=pull.head.ref if pull and pull.head else None,
        comment=_new_comment(event, given),
        own_counts=event in ("pull_request", "pull_request_sync"),
    )


def _new_comment(event: str, given: IssueEvent) -> NewComment | None:
    """The comment that the sender just wrote. None for an edited one: it gives no command."""
    comment = given.comment
    if event not in COMMENT_EVENTS or comment is None or given.action != "created":
        return None
    sender, author = (given.sender or NOBODY).id, (comment.user or NOBODY).id
    if not sender or author != sender:
        return None
    permissions = given.repository.permissions
    may_write = permissions.push if permissions else None
    return NewComment(comment.id, comment.body or "", may_write, comment.created_at)


def _push_hint(given: Push) -> Hint:
    """Some forges write the name of a branch without `refs/heads/`."""
    ref = given.ref
    is_branch = given.ref_type == "branch" and (ref.startswith(HEADS) or not ref.startswith("refs/"))
    return Hint(
        given.repository.id,
        given.repository.full_name,
        given.sender or NOBODY,
        branch=ref.removeprefix(HEADS) if is_branch else None,
        is_test=bool(given.before) and given.before == given.after,
        own_counts=True,
    )


def _action_hint(given: ActionEvent) -> Hint:
    run, sender = given.run, given.run.trigger_user or NOBODY
    return Hint(run.repository.id, run.repository.full_name, sender, sha=run.commit_sha, own_counts=True)

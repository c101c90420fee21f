"""Changes issues and sends the webhooks for it: open, edit, close, label, comment."""

from __future__ import annotations

import re

from . import repository_json, webhook_payloads
from .models import Comment, Issue, Json, Label, Repository, User
from .store import Store

CLOSES = re.compile(r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+#(\d+)\b", re.IGNORECASE)


def file(store: Store, repo: Repository, user: User, title: str, body: str) -> Issue:
    """Give it the next number; pulls and issues share the count."""
    now = store.touch(repo)
    one = Issue(next(store.issue_ids), max(repo.issues, default=0) + 1, user, title, body, now, now)
    repo.issues[one.number] = one
    return one


def open_issue(
    store: Store,
    repo: Repository,
    user: User,
    title: str,
    body: str,
    labels: list[Label],
    assignees: list[User],
) -> Issue:
    one = file(store, repo, user, title, body)
    one.labels, one.assignees = labels, assignees
    for label in labels:
        store.note(one, "label", user, "1", label)
    for assignee in assignees:
        note_assignee(store, one, user, assignee)
    announce(store, repo, one, "opened", user)
    if labels:
        announce(store, repo, one, "label_updated", user, kind="_label")
    if assignees:
        announce(store, repo, one, "assigned", user, kind="_assign")
    return one


def announce(
    store: Store,
    repo: Repository,
    one: Issue,
    action: str,
    doer: User,
    kind: str = "",
    changes: Json | None = None,
    commit_id: str = "",
) -> None:
    if one.pull:
        store.announce(repo, f"pull_request{kind}", webhook_payloads.pull(store, repo, one, action, doer, changes))
    else:
        store.announce(
            repo,
            f"issue{kind}" if kind else "issues",
            webhook_payloads.issue(store, repo, one, action, doer, changes, commit_id),
        )


def edit(store: Store, repo: Repository, one: Issue, doer: User, title: str | None, body: str | None) -> None:
    for name, new in (("title", title), ("body", body)):
        old = getattr(one, name)
        if new is None or new == old:
            continue
        setattr(one, name, new)
        store.touch(repo, one)
        if name == "title":
            store.note(one, "change_title", doer, old_title=old, new_title=new)
        announce(store, repo, one, "edited", doer, changes={name: {"from": old}})


def assign(store: Store, repo: Repository, one: Issue, doer: User, assignees: list[User]) -> None:
    for action, these in (
        ("unassigned", [user for user in one.assignees if user not in assignees]),
        ("assigned", [user for user in assignees if user not in one.assignees]),
    ):
        for user in these:
            one.assignees = (
                [*one.assignees, user]
                if action == "assigned"
                else [other for other in one.assignees if other is not user]
            )
            store.touch(repo, one)
            note_assignee(store, one, doer, user, action == "unassigned")
            announce(store, repo, one, action, doer, kind="_assign")


def note_assignee(store: Store, one: Issue, doer: User, user: User, removed: bool = False) -> None:
    store.note(one, "assignees", doer, assignee=repository_json.user(store, user), removed_assignee=removed)


def set_state(store: Store, repo: Repository, one: Issue, doer: User, state: str, commit_id: str = "") -> None:
    if state == one.state:
        return
    one.state = state
    now = store.touch(repo, one)
    one.closed = now if state == "closed" else None
    store.note(one, "close" if state == "closed" else "reopen", doer)
    announce(store, repo, one, "closed" if state == "closed" else "reopened", doer, commit_id=commit_id)


def close_named(store: Store, repo: Repository, doer: User, words: str, commit_id: str) -> None:
    """Close each open issue that the words say they close."""
    for number in dict.fromkeys(CLOSES.findall(words)):
        one = repo.issues.get(int(number))
        if one and not one.pull and one.state == "open":
            set_state(store, repo, one, doer, "closed", commit_id)


def set_labels(store: Store, repo: Repository, one: Issue, doer: User, labels: list[Label]) -> None:
    """Always announces, even when nothing changed, as Forgejo does."""
    had_some = bool(one.labels)
    for label in [old for old in one.labels if old not in labels]:
        store.note(one, "label", doer, "", label)
    for label in [new for new in labels if new not in one.labels]:
        store.note(one, "label", doer, "1", label)
    one.labels = sorted(labels, key=lambda label: label.name)
    store.touch(repo, one)
    if labels or had_some:
        announce(store, repo, one, "label_updated", doer, kind="_label")


def add_labels(store: Store, repo: Repository, one: Issue, doer: User, labels: list[Label]) -> None:
    wanted = list(one.labels)
    for label in labels:
        scope = label.name.rpartition("/")[0] if label.exclusive else ""
        wanted = [
            old
            for old in wanted
            if old is not label and not (scope and old.exclusive and old.name.rpartition("/")[0] == scope)
        ]
        wanted.append(label)
    set_labels(store, repo, one, doer, wanted)


def clear_labels(store: Store, repo: Repository, one: Issue, doer: User) -> None:
    for label in one.labels:
        store.note(one, "label", doer, "", label)
    one.labels = []
    store.touch(repo, one)
    announce(store, repo, one, "label_cleared", doer, kind="_label")


def say(store: Store, repo: Repository, one: Issue, doer: User, body: str) -> Comment:
    line = store.note(one, "comment", doer, body)
    store.touch(repo, one)
    announce_comment(store, repo, one, line, "created", doer)
    return line


def announce_comment(
    store: Store,
    repo: Repository,
    one: Issue,
    line: Comment,
    action: str,
    doer: User,
    changes: Json | None = None,
) -> None:
    store.announce(
        repo,
        "pull_request_comment" if one.pull else "issue_comment",
        webhook_payloads.comment(store, repo, one, line, action, doer, changes),
    )


def edit_comment(store: Store, repo: Repository, one: Issue, line: Comment, doer: User, body: str) -> None:
    if body == line.body:
        return
    old, line.body = line.body, body
    line.updated = store.touch(repo, one)
    announce_comment(store, repo, one, line, "edited", doer, {"body": {"from": old}})


def delete_comment(store: Store, repo: Repository, one: Issue, line: Comment, doer: User) -> None:
    one.timeline.remove(line)
    store.touch(repo, one)
    announce_comment(store, repo, one, line, "deleted", doer)

"""What people do with issues, each with the deliveries it sends: open, edit, close, label, comment."""

from __future__ import annotations

import re

from . import objects, payloads
from .state import Comment, Issue, Json, Label, Repository, User
from .world import World

CLOSES = re.compile(r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+#(\d+)\b", re.IGNORECASE)


def file(world: World, repo: Repository, user: User, title: str, body: str) -> Issue:
    """Give it the next number; pulls and issues share the count."""
    now = world.touch(repo)
    one = Issue(next(world.issue_ids), max(repo.issues, default=0) + 1, user, title, body, now, now)
    repo.issues[one.number] = one
    return one


def open_issue(
    world: World,
    repo: Repository,
    user: User,
    title: str,
    body: str,
    labels: list[Label],
    assignees: list[User],
) -> Issue:
    one = file(world, repo, user, title, body)
    one.labels, one.assignees = labels, assignees
    for label in labels:
        world.note(one, "label", user, "1", label)
    for assignee in assignees:
        note_assignee(world, one, user, assignee)
    announce(world, repo, one, "opened", user)
    if labels:
        announce(world, repo, one, "label_updated", user, kind="_label")
    if assignees:
        announce(world, repo, one, "assigned", user, kind="_assign")
    return one


def announce(
    world: World,
    repo: Repository,
    one: Issue,
    action: str,
    doer: User,
    kind: str = "",
    changes: Json | None = None,
    commit_id: str = "",
) -> None:
    if one.pull:
        world.announce(repo, f"pull_request{kind}", payloads.pull(world, repo, one, action, doer, changes))
    else:
        world.announce(
            repo,
            f"issue{kind}" if kind else "issues",
            payloads.issue(world, repo, one, action, doer, changes, commit_id),
        )


def edit(world: World, repo: Repository, one: Issue, doer: User, title: str | None, body: str | None) -> None:
    for name, new in (("title", title), ("body", body)):
        old = getattr(one, name)
        if new is None or new == old:
            continue
        setattr(one, name, new)
        world.touch(repo, one)
        if name == "title":
            world.note(one, "change_title", doer, old_title=old, new_title=new)
        announce(world, repo, one, "edited", doer, changes={name: {"from": old}})


def assign(world: World, repo: Repository, one: Issue, doer: User, assignees: list[User]) -> None:
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
            world.touch(repo, one)
            note_assignee(world, one, doer, user, action == "unassigned")
            announce(world, repo, one, action, doer, kind="_assign")


def note_assignee(world: World, one: Issue, doer: User, user: User, removed: bool = False) -> None:
    world.note(one, "assignees", doer, assignee=objects.user(world, user), removed_assignee=removed)


def set_state(world: World, repo: Repository, one: Issue, doer: User, state: str, commit_id: str = "") -> None:
    if state == one.state:
        return
    one.state = state
    now = world.touch(repo, one)
    one.closed = now if state == "closed" else None
    world.note(one, "close" if state == "closed" else "reopen", doer)
    announce(world, repo, one, "closed" if state == "closed" else "reopened", doer, commit_id=commit_id)


def close_named(world: World, repo: Repository, doer: User, words: str, commit_id: str) -> None:
    """Close each open issue that the words say they close."""
    for number in dict.fromkeys(CLOSES.findall(words)):
        one = repo.issues.get(int(number))
        if one and not one.pull and one.state == "open":
            set_state(world, repo, one, doer, "closed", commit_id)


def set_labels(world: World, repo: Repository, one: Issue, doer: User, labels: list[Label]) -> None:
    """Always announces, even when nothing changed, as Forgejo does."""
    had_some = bool(one.labels)
    for label in [old for old in one.labels if old not in labels]:
        world.note(one, "label", doer, "", label)
    for label in [new for new in labels if new not in one.labels]:
        world.note(one, "label", doer, "1", label)
    one.labels = sorted(labels, key=lambda label: label.name)
    world.touch(repo, one)
    if labels or had_some:
        announce(world, repo, one, "label_updated", doer, kind="_label")


def add_labels(world: World, repo: Repository, one: Issue, doer: User, labels: list[Label]) -> None:
    wanted = list(one.labels)
    for label in labels:
        scope = label.name.rpartition("/")[0] if label.exclusive else ""
        wanted = [
            old
            for old in wanted
            if old is not label and not (scope and old.exclusive and old.name.rpartition("/")[0] == scope)
        ]
        wanted.append(label)
    set_labels(world, repo, one, doer, wanted)


def clear_labels(world: World, repo: Repository, one: Issue, doer: User) -> None:
    for label in one.labels:
        world.note(one, "label", doer, "", label)
    one.labels = []
    world.touch(repo, one)
    announce(world, repo, one, "label_cleared", doer, kind="_label")


def say(world: World, repo: Repository, one: Issue, doer: User, body: str) -> Comment:
    line = world.note(one, "comment", doer, body)
    world.touch(repo, one)
    announce_comment(world, repo, one, line, "created", doer)
    return line


def announce_comment(
    world: World,
    repo: Repository,
    one: Issue,
    line: Comment,
    action: str,
    doer: User,
    changes: Json | None = None,
) -> None:
    world.announce(
        repo,
        "pull_request_comment" if one.pull else "issue_comment",
        payloads.comment(world, repo, one, line, action, doer, changes),
    )


def edit_comment(world: World, repo: Repository, one: Issue, line: Comment, doer: User, body: str) -> None:
    if body == line.body:
        return
    old, line.body = line.body, body
    line.updated = world.touch(repo, one)
    announce_comment(world, repo, one, line, "edited", doer, {"body": {"from": old}})


def delete_comment(world: World, repo: Repository, one: Issue, line: Comment, doer: User) -> None:
    one.timeline.remove(line)
    world.touch(repo, one)
    announce_comment(world, repo, one, line, "deleted", doer)

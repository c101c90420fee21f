"""Holds the records of one fake forge behind a lock: users, repositories, permissions, counters."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from . import git_commands
from .deliveries import WebhookSender
from .models import Comment, Hook, Issue, Json, Label, Repository, User

RIGHTS = {"none": 0, "read": 1, "write": 2, "admin": 3, "owner": 4}


def system_clock() -> datetime:
    return datetime.now(UTC)


class Store:
    def __init__(self, root: Path, webhooks: WebhookSender, clock: Callable[[], datetime]) -> None:
        self.root, self.webhooks, self.clock = root, webhooks, clock
        self.url = "http://127.0.0.1"
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.tokens: dict[str, User] = {}
        self.scopes: dict[str, set[str]] = {}  # of the tokens that may not do everything
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, Repository] = {}
        self.hooks: dict[int, Hook] = {}
        self.anyone_may_ask_permissions = False
        self.largest_page = 50  # entries; an administrator sets it as MAX_RESPONSE_ITEMS
        self.nobody_is_official = False  # as with older Gitea where no rule protects the branch
        self.user_ids, self.repository_ids, self.issue_ids = count(1), count(42), count(901)
        self.pull_ids, self.comment_ids, self.review_ids = count(501), count(7001), count(301)
        self.label_ids, self.hook_ids, self.status_ids, self.run_ids = (
            count(5),
            count(11),
            count(1),
            count(3077),
        )

    def now(self) -> datetime:
        return self.clock().replace(microsecond=0)

    def add_user(self, login: str, full_name: str = "", is_admin: bool = False) -> str:
        """Make the account, or only a further token for it."""
        user = self.users.get(login.lower())
        if user is None:
            user = User(next(self.user_ids), login, full_name or login.capitalize(), self.now(), is_admin)
            self.users[login.lower()] = user
        token = secrets.token_hex(20)
        self.tokens[token] = user
        return token

    def add_organisation(self, login: str, owners: list[str]) -> User:
        org = self.users.get(login.lower())
        if org is None:
            org = User(next(self.user_ids), login, login.capitalize(), self.now(), owners=set())
            self.users[login.lower()] = org
        if org.owners is not None:
            org.owners.update(owners)
        return org

    def add_repository(self, full_name: str, files: dict[str, str], private: bool) -> Repository:
        owner_name, name = full_name.split("/")
        owner = self.users.get(owner_name.lower()) or self.add_organisation(owner_name, [])
        path = self.root / f"{full_name}.git"
        if path.exists():  # an earlier repository had this name
            path = self.root / f"{full_name}-{len(self.repositories)}.git"
        git_commands.create(path, files, owner.full_name, self.email(owner))
        now = self.now()
        repo = Repository(next(self.repository_ids), owner, name, path, now, now, private=private)
        self.repositories[full_name.lower()] = repo
        return repo

    def rename(self, full_name: str, new_name: str) -> Repository:
        """Send no event, as Forgejo. The old name redirects until another repository takes it."""
        repo = self.repositories.pop(full_name.lower())
        owner, repo.name = new_name.split("/")
        repo.owner = self.users.get(owner.lower()) or self.add_organisation(owner, [])
        self.repositories[new_name.lower()] = repo
        self.renamed[full_name.lower()] = repo
        return repo

    def add_label(self, repo: Repository, name: str, color: str = "0e8a16", exclusive: bool = False) -> Label:
        label = Label(next(self.label_ids), name, color.lstrip("#").lower(), exclusive=exclusive)
        repo.labels.append(label)
        return label

    def email(self, user: User) -> str:
        return f"{user.login}@noreply.{self.host}"

    @property
    def host(self) -> str:
        return self.url.split("//", 1)[1]

    def right(self, user: User | None, repo: Repository) -> str:
        if user is None:
            return "none" if repo.private else "read"
        if user is repo.owner or user.login in (repo.owner.owners or ()):
            return "owner"
        if user.is_admin:
            return "admin"
        return repo.collaborators.get(user.login, "none" if repo.private else "read")

    def may(self, user: User | None, needed: str, repo: Repository) -> bool:
        return RIGHTS[self.right(user, repo)] >= RIGHTS[needed]

    def touch(self, repo: Repository, issue: Issue | None = None) -> datetime:
        now = self.now()
        repo.updated = now
        if issue is not None:
            issue.updated = now
        return now

    def note(
        self, issue: Issue, kind: str, user: User, body: str = "", label: Label | None = None, **more: object
    ) -> Comment:
        """Write one line into the issue's timeline."""
        now = self.now()
        line = Comment(next(self.comment_ids), kind, user, body, now, now, label, more)
        issue.timeline.append(line)
        return line

    def announce(self, repo: Repository, event_type: str, body: Json, branch: str | None = None) -> None:
        """Queue one delivery for each hook that wants this event; `branch` is what branch filters see."""
        self.webhooks.announce(
            [hook for hook in self.hooks.values() if self.reaches(hook, repo)], event_type, body, branch
        )

    @staticmethod
    def reaches(hook: Hook, repo: Repository) -> bool:
        return hook.repository_id == repo.id or hook.organisation == repo.owner.login

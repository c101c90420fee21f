"""Handles pushes to `refs/for/BASE` (AGit flow): creates or updates a pull request without a branch."""

from __future__ import annotations

import base64

from . import git_commands, issues, pulls
from .models import Json, Pull, Repository, User
from .store import Store

FOR = "refs/for/"


def options(sent: bytes) -> Json:
    """The push options in a request to receive-pack: the second list of lines, after the first flush."""
    found: list[bytes] = []
    lists = 0
    while sent and lists < 2:
        length = int(sent[:4], 16)
        if length == 0:
            lists, sent = lists + 1, sent[4:]
            if lists == 1 and sent.startswith(b"PACK"):
                break
            continue
        found += [sent[4:length].rstrip(b"\n")] if lists == 1 else []
        sent = sent[length:]
    pairs = [line.decode().partition("=") for line in found]
    return {name: decoded(value) for name, _, value in pairs}


def decoded(value: str) -> str:
    marked = value.startswith("{base64}")
    return base64.b64decode(value.removeprefix("{base64}")).decode() if marked else value


def pushed(store: Store, repo: Repository, doer: User, ref: str, sha: str, asked: Json) -> None:
    """The ref itself does not stay; the same topic moves the open pull request that it made."""
    git_commands.drop(repo.path, ref)
    base = ref.removeprefix(FOR)
    head = f"{doer.login.lower()}/{asked['topic']}"
    there = pulls.find(repo, base, head, only_open=True)
    if there is not None:
        pulls.head_moved(store, repo, there, doer, sha)
        return
    one = issues.file(store, repo, doer, asked.get("title", "Untitled"), asked.get("description", ""))
    tip = git_commands.branch(repo.path, base) or ""
    parted = git_commands.merge_base(repo.path, tip, sha)
    one.pull = Pull(next(store.pull_ids), base, head, sha, parted, flow=1)
    git_commands.move(repo.path, f"refs/pull/{one.number}/head", sha)
    issues.announce(store, repo, one, "opened", doer)

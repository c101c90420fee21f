"""Reads commits, and writes them as the API and the webhooks show them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from . import git_commands, issue_json, repository_json
from .models import Json, Repository
from .store import Store

FORMAT = "%x1e" + "%x1f".join(["%H", "%T", "%P", "%an", "%ae", "%aI", "%cn", "%ce", "%cI", "%B"]) + "%x1f"
NAMES = (
    "sha",
    "tree",
    "parents",
    "author",
    "author_email",
    "author_date",
    "committer",
    "committer_email",
    "committer_date",
    "message",
)
LETTERS = {"A": "added", "D": "removed"}
PAYLOAD_LIMIT = 15
NEW_BRANCH_LIMIT = 10


@lru_cache(maxsize=4096)
def _read(path: Path, ranges: tuple[str, ...], limit: int) -> str:
    asked = [f"-{limit}", f"--format={FORMAT}", "--name-status", "--no-renames", "--diff-merges=first-parent"]
    found = git_commands.run(path, "-c", "core.quotePath=false", "log", *asked, *ranges, "--")
    return found.decode(errors="replace")


def read(path: Path, *ranges: str, limit: int = 250) -> list[Json]:
    """Newest first; ranges must be made of commit ids, for what is read is remembered."""
    return [_parse(chunk) for chunk in _read(path, ranges, limit).split("\x1e")[1:]]


def _parse(chunk: str) -> Json:
    *values, files = chunk.split("\x1f")
    one: Json = dict(zip(NAMES, values, strict=True))
    one["message"] = one["message"].strip() + "\n"
    one["author_date"], one["committer_date"] = (
        one[key].replace("+00:00", "Z") for key in ("author_date", "committer_date")
    )
    one["files"] = [line.split("\t", 1) for line in files.strip().splitlines() if line]
    return one


def between(repo: Repository, old: str, new: str, limit: int = 250) -> list[Json]:
    return read(repo.path, f"{old}..{new}", limit=limit)


def one_of(repo: Repository, sha: str) -> Json:
    return read(repo.path, sha, limit=1)[0]


def in_payload(store: Store, repo: Repository, one: Json) -> Json:
    """A commit in a push, or at a branch's tip."""
    files: dict[str, list[str]] = {"added": [], "removed": [], "modified": []}
    for letter, name in one["files"]:
        files[LETTERS.get(letter, "modified")].append(name)
    return {
        "id": one["sha"],
        "message": one["message"],
        "url": f"{repository_json.html(store, repo)}/commit/{one['sha']}",
        "author": _person(store, one, "author"),
        "committer": _person(store, one, "committer"),
        "verification": None,
        "timestamp": one["committer_date"],
        **files,
    }


def _person(store: Store, one: Json, role: str) -> Json:
    email = one[f"{role}_email"]
    login = next((user.login for user in store.users.values() if store.email(user) == email), "")
    return {"name": one[role], "email": email, "username": login}


def in_api(store: Store, repo: Repository, one: Json) -> Json:
    api = f"{store.url}/api/v1/repos/{repo.full_name}/git"
    roles = {
        role: {"name": one[role], "email": one[f"{role}_email"], "date": one[f"{role}_date"]}
        for role in ("author", "committer")
    }
    accounts = {
        role: next(
            (
                repository_json.user(store, user)
                for user in store.users.values()
                if store.email(user) == one[f"{role}_email"]
            ),
            None,
        )
        for role in roles
    }
    url, created = f"{api}/commits/{one['sha']}", one["committer_date"]
    return {
        "url": url,
        "sha": one["sha"],
        "created": created,
        "html_url": f"{repository_json.html(store, repo)}/commit/{one['sha']}",
        "commit": {
            "url": url,
            **roles,
            "message": one["message"],
            "verification": None,
            "tree": {"url": f"{api}/trees/{one['tree']}", "sha": one["tree"], "created": created},
        },
        **accounts,
        "parents": [
            {"url": f"{api}/commits/{sha}", "sha": sha, "created": repository_json.ZERO_TIME}
            for sha in one["parents"].split()
        ],
        "files": [{"filename": name, "status": LETTERS.get(letter, "modified")} for letter, name in one["files"]],
        "stats": _stats(repo, one),
    }


def _stats(repo: Repository, one: Json) -> Json:
    first = (one["parents"].split() or [""])[0]
    additions, deletions, _ = issue_json.changed(repo.path, first, one["sha"])
    return {"total": additions + deletions, "additions": additions, "deletions": deletions}

"""A thin client of Forgejo's API, in our words. Every write looks first whether it was done before."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from app.domain.errors import Kind, Refused, Unavailable
from app.ports import Issue, Pull, Repository, Review

TIMEOUT = httpx.Timeout(10, connect=3)
PAGE = 50
TRY_LATER = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
WRITERS = frozenset({"write", "admin", "owner"})
LABEL_COLOURS = "1d76db"

Json = Any


class Forgejo:
    """One forge. Calls raise Unavailable when it did not answer, Refused when it said no."""

    def __init__(self, name: str, url: str, token: str) -> None:
        self.name = name
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1",
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=4),
        )
        self._bot: str | None = None

    def bot(self) -> str:
        """The login that our token belongs to."""
        self._bot = self._bot or str(self._get("/user")["login"])
        return self._bot

    # --- repositories and issues

    def repository(self, full_name: str) -> Repository | None:
        found = self._find(f"/repos/{full_name}")
        return found and Repository(found["id"], found["full_name"], found["clone_url"], found["default_branch"])

    def issue(self, repository: str, number: int) -> Issue | None:
        found = self._find(f"/repos/{repository}/issues/{number}")
        return _issue(found) if found and not found.get("pull_request") else None

    def wanted_issues(self, repository: str, prefix: str) -> list[int]:
        """The numbers of open issues that bear a label starting with `prefix`."""
        found = self._pages(f"/repos/{repository}/issues", state="open", type="issues")
        issues = [_issue(one) for one in found if not one.get("pull_request")]
        return [issue.number for issue in issues if any(label.lower().startswith(prefix) for label in issue.labels)]

    def who_labelled(self, repository: str, number: int, prefix: str) -> str | None:
        """Who put the newest label that starts with `prefix` on an issue, by its timeline."""
        timeline = self._pages(f"/repos/{repository}/issues/{number}/timeline")
        put = [
            entry["user"]["login"]
            for entry in timeline
            if entry.get("type") == "label"
            and entry.get("body") == "1"
            and str((entry.get("label") or {}).get("name", "")).lower().startswith(prefix)
            and entry.get("user")
        ]
        return str(put[-1]) if put else None

    def may_write(self, repository: str, login: str) -> bool | None:
        """Whether somebody may write to a repository; None where our token may not ask (that takes an admin's)."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
        answer = self._send("GET", path, ok={403, 404})
        if answer.status_code == httpx.codes.FORBIDDEN:
            return None
        return answer.is_success and answer.json().get("permission") in WRITERS

    # --- pull requests

    def pull(self, repository: str, number: int) -> Pull | None:
        found = self._find(f"/repos/{repository}/pulls/{number}")
        return _pull(found) if found else None

    def pull_for(self, repository: str, branch: str, base: str) -> Pull | None:
        """The pull request from `branch` into `base`, in whatever state; an open one before any other."""
        found = self._find(f"/repos/{repository}/pulls/{quote(base, safe='')}/{quote(branch, safe='')}")
        return _pull(found, branch) if found else None

    def open_pull(self, repository: str, branch: str, base: str, title: str, body: str) -> Pull:
        """Open a pull request, or adopt the open one that there is."""
        answer = self._send(
            "POST",
            f"/repos/{repository}/pulls",
            {"head": branch, "base": base, "title": title, "body": body},
            ok={409},
        )
        if answer.status_code != httpx.codes.CONFLICT:
            return _pull(answer.json())
        for found in self._pages(f"/repos/{repository}/pulls", state="open"):
            if (pull := _pull(found)).branch == branch and found["base"]["ref"] == base:
                return pull
        raise Unavailable(f"The forge says that a pull request from {branch} exists, and does not list it.")

    def branch_head(self, repository: str, branch: str) -> str | None:
        """The newest commit of a branch, None when there is no such branch."""
        found = self._find(f"/repos/{repository}/branches/{quote(branch, safe='')}")
        return str(found["commit"]["id"]) if found else None

    def has_commit(self, repository: str, sha: str) -> bool:
        """Whether the forge holds a commit; one that is compared with itself is either there or not found."""
        return self._find(f"/repos/{repository}/compare/{quote(sha, safe='')}...{quote(sha, safe='')}") is not None

    def has_file(self, repository: str, branch: str, path: str) -> bool:
        """Whether a file stands on a branch. A path that would climb out of the address names none."""
        if {"", ".", ".."} & set(path.split("/")):
            return False
        where = f"/repos/{repository}/contents/{quote(path)}"
        return self._send("GET", where, query={"ref": branch}, ok={404}).is_success

    def reviews_asking_for_changes(self, repository: str, number: int) -> list[Review]:
        """Reviews by people who may write that ask for changes and were not dismissed, oldest first, with comments."""
        reviews = self._pages(f"/repos/{repository}/pulls/{number}/reviews")
        return [
            Review(
                one["id"],
                one["user"]["login"],
                one.get("body") or "",
                self._review_comments(repository, number, one),
            )
            for one in reviews
            if one["state"] == "REQUEST_CHANGES"
            and not one.get("dismissed")
            and one["user"]["login"] != self.bot()
            and one.get("official")
        ]

    def _review_comments(self, repository: str, number: int, review: Json) -> tuple[tuple[str, int | None, str], ...]:
        if not review.get("comments_count"):
            return ()
        found = self._get(f"/repos/{repository}/pulls/{number}/reviews/{review['id']}/comments")
        return tuple((one["path"], one.get("position") or None, one.get("body") or "") for one in found)

    # --- what we write on an issue

    def comment_once(self, repository: str, number: int, marker: str, body: str, known: int | None) -> int:
        """Have exactly one comment of ours with `marker` as its last line say `body`; returns its id."""
        text = f"{body}\n\n{marker}"
        if known and self._edit_comment(repository, known, text):
            return known
        mine = self._comment_with(repository, number, marker)
        if mine and self._edit_comment(repository, mine, text):
            return mine
        return int(self._send("POST", f"/repos/{repository}/issues/{number}/comments", {"body": text}).json()["id"])

    def _edit_comment(self, repository: str, comment: int, text: str) -> bool:
        """False when somebody deleted it."""
        answer = self._send("PATCH", f"/repos/{repository}/issues/comments/{comment}", {"body": text}, ok={404})
        return answer.status_code != httpx.codes.NOT_FOUND

    def _comment_with(self, repository: str, number: int, marker: str) -> int | None:
        """Our own comment that ends with `marker`; anybody else's copy of it does not count."""
        for one in self._get(f"/repos/{repository}/issues/{number}/comments"):
            if one["user"]["login"] == self.bot() and (one.get("body") or "").rstrip().endswith(marker):
                return int(one["id"])
        return None

    def set_labels(self, repository: str, number: int, wanted: Mapping[str, str], ours: frozenset[str]) -> None:
        """Of the labels named in `ours` have just `wanted` (name -> description) on the issue; make those the
        repository lacks. Labels of others are left alone."""
        present = {label["name"]: label["id"] for label in self._get(f"/repos/{repository}/issues/{number}/labels")}
        for name in sorted(ours & present.keys() - wanted.keys()):
            self._send("DELETE", f"/repos/{repository}/issues/{number}/labels/{present[name]}", ok={404, 422})
        missing = [name for name in wanted if name not in present]
        if missing:
            ids = [self._label_id(repository, name, wanted[name]) for name in missing]
            self._send("POST", f"/repos/{repository}/issues/{number}/labels", {"labels": ids})

    def _label_id(self, repository: str, name: str, description: str) -> int:
        for label in self._pages(f"/repos/{repository}/labels"):
            if label["name"] == name:
                return int(label["id"])
        new = {"name": name, "color": f"#{LABEL_COLOURS}", "description": description}
        return int(self._send("POST", f"/repos/{repository}/labels", new).json()["id"])

    # --- the wire

    def _get(self, path: str, **query: Any) -> Json:
        return self._send("GET", path, query=query).json()

    def _find(self, path: str) -> Json | None:
        answer = self._send("GET", path, ok={404})
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.json()

    def _pages(self, path: str, **query: Any) -> list[Json]:
        """Every entry of a paginated list, bounded."""
        entries: list[Json] = []
        for page in range(1, 41):
            got = self._get(path, page=page, limit=PAGE, **query)
            entries += got
            if len(got) < PAGE:
                break
        return entries

    def _send(
        self, method: str, path: str, body: Json = None, ok: frozenset[int] | set[int] = frozenset(), query: Any = None
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise Unavailable(f"The forge {self.name} did not answer {method} {path}: {error!r}.") from error
        if answer.is_success or answer.status_code in ok:
            return answer
        raise self._no(method, path, answer)

    def _no(self, method: str, path: str, answer: httpx.Response) -> Refused:
        said = answer.text[:300].strip()
        sentence = f"The forge {self.name} answered {answer.status_code} to {method} {path}: {said or '(nothing)'}"
        if answer.status_code in TRY_LATER:
            return Unavailable(sentence, _retry_after(answer))
        kinds = {401: Kind.UNAUTHORIZED, 403: Kind.FORBIDDEN, 404: Kind.UNKNOWN}
        return Refused(kinds.get(answer.status_code, Kind.INVALID), sentence)


def _retry_after(answer: httpx.Response) -> float | None:
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isdigit() else None


def _issue(found: Json) -> Issue:
    labels = tuple(label["name"] for label in found.get("labels") or ())
    return Issue(
        number=found["number"],
        title=found["title"],
        body=found.get("body") or "",
        url=found["html_url"],
        open=found["state"] == "open",
        labels=labels,
        author=found["user"]["login"],
    )


def _pull(found: Json, branch: str | None = None) -> Pull:
    return Pull(
        number=found["number"],
        title=found["title"],
        url=found["html_url"],
        branch=branch or _branch(found["head"], found["base"]),
        head=found["head"]["sha"],
        open=found["state"] == "open",
        merged=bool(found.get("merged")),
        merge_commit=found.get("merge_commit_sha"),
        merged_by=(found.get("merged_by") or {}).get("login"),
        closed_at=found.get("closed_at"),
    )


def _branch(head: Json, base: Json) -> str:
    """The name of the head's branch, also when it is deleted by now; empty when it is another repository's."""
    return str(head.get("label") or head["ref"]) if head.get("repo_id") == base.get("repo_id") else ""

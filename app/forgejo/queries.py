"""Reads from the forge's API: repositories, issues, pull requests, reviews, files, permissions."""

import base64
import binascii
from collections.abc import Collection
from urllib.parse import quote

import httpx

from app.domain.errors import Kind, Refused
from app.forgejo import models
from app.forgejo.http import MOST_ENTRIES, HttpClient
from app.forgejo.models import CommitStatus, Found, TimelineEntry
from app.ports import Account, Comment, Issue, Pull, Repository, Requester, Review, ReviewComment

WRITERS = frozenset({"write", "admin", "owner"})
LARGEST_FILE = 256 * 1024  # bytes
HIDDEN_OR_MISSING = frozenset({403, 404})
OUR_STATUS = "agent-fleet/task"
_REVIEW_STATES = frozenset({"APPROVED", "REQUEST_CHANGES", "COMMENT"})
_CHECK_STATES = (
    ("failure", {"failure", "error"}),
    ("pending", {"pending"}),
    ("success", {"success", "warning", "skipped"}),
)


class Queries(HttpClient):
    """The calls of a forge that change nothing."""

    _bot: Account | None = None

    def bot(self) -> Account:
        """The account that our token belongs to. A token that may not read it needs `bot_id` in fleet.toml; the login
        is empty then."""
        if self._bot is None:
            answer = self.send("GET", "/user", ok={403} if self._bot_id else set())
            self._bot = models.parse_account(answer.json()) if answer.is_success else Account(self._bot_id or 0, "")
        return self._bot

    # --- repositories and issues

    def repository(self, full_name: str) -> Repository | None:
        found = self.get_or_none(f"/repos/{full_name}")
        return found and models.parse_repository(found)

    def repository_by_id(self, id_: int) -> Repository | None:
        """A repository by the forge's own id, which survives a rename."""
        found = self.get_or_none(f"/repositories/{id_}")
        return found and models.parse_repository(found)

    def repositories_of(self, owner: str) -> list[Repository]:
        """The repositories of a user or an organisation that we can see and that are not archived."""
        path = f"/orgs/{owner}/repos"
        if self.get_or_none(path, limit=1) is None:
            path = f"/users/{owner}/repos"
        return [models.parse_repository(one) for one in self.get_pages(path) if not one.get("archived")]

    def issue(self, repository: str, number: int) -> Issue | None:
        """An issue; None also for a pull request."""
        found = self.get_or_none(f"/repos/{repository}/issues/{number}")
        return models.parse_issue(found) if found and not found.get("pull_request") else None

    def wanted_issues(self, repository: str, prefix: str) -> list[int]:
        """The numbers of open issues that have a label starting with `prefix` or are assigned to us."""
        found = self.get_pages(f"/repos/{repository}/issues", state="open", type="issues")
        issues = [models.parse_issue(one) for one in found if not one.get("pull_request")]
        return [one.number for one in issues if _has_label(one, prefix) or self.is_assigned_to_us(one)]

    def is_assigned_to_us(self, issue: Issue) -> bool:
        return bool(issue.assignees) and self.bot().id in [one.id for one in issue.assignees]

    def changed_issues(self, repository: str, since: str) -> list[tuple[int, bool]]:
        """Issues and pull requests that changed since a time of the forge's clock: (number, is it a pull request)."""
        found = self.get_pages(f"/repos/{repository}/issues", state="all", since=since)
        return [(one["number"], bool(one.get("pull_request"))) for one in found]

    def comments_since(self, repository: str, since: str) -> list[Comment]:
        """Comments on issues and pull requests, written or edited since a time of the forge's clock."""
        return _comments(self.get_pages(f"/repos/{repository}/issues/comments", since=since))

    def comments(self, repository: str, number: int) -> list[Comment]:
        """The comments on an issue or a pull request, oldest first."""
        return _comments(self.get_list(f"/repos/{repository}/issues/{number}/comments"))

    # --- who did it, and who may

    def who_labelled(self, repository: str, number: int, prefix: str) -> Requester | None:
        """Who put the newest label that starts with `prefix` on an issue."""
        timeline = self._timeline(repository, number)
        return _newest([entry for entry in timeline if _adds_label(entry, prefix)])

    def who_assigned(self, repository: str, number: int) -> Requester | None:
        """Who assigned an issue to us. None if we did it ourselves, or if the assignment was taken away since."""
        timeline = self._timeline(repository, number)
        ours = [entry for entry in timeline if entry.kind == "assignees" and entry.assignee == self.bot().id]
        if not ours or ours[-1].removed or ours[-1].account.id == self.bot().id:
            return None
        return _newest(ours)

    def who_reopened(self, repository: str, number: int) -> Requester | None:
        """Who reopened an issue last."""
        return _newest([entry for entry in self._timeline(repository, number) if entry.kind == "reopen"])

    def _timeline(self, repository: str, number: int) -> list[TimelineEntry]:
        """An issue's timeline, oldest first, without the entries of deleted accounts."""
        found = self.get_pages(f"/repos/{repository}/issues/{number}/timeline", gaps=True)
        return [models.parse_timeline_entry(one) for one in found if one.get("user")]

    def may_write(self, repository: str, login: str) -> bool | None:
        """Whether an account has write permission. None if our token may not ask, which needs administrator rights."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
        answer = self.send("GET", path, ok={403, 404})
        if answer.status_code == httpx.codes.FORBIDDEN:
            return None
        return answer.is_success and answer.json().get("permission") in WRITERS

    def is_assignable(self, repository: str, login: str) -> bool | None:
        """Whether issues can be assigned to an account, which takes write permission. None if the forge does not say.
        Every token may ask this."""
        answer = self.send("GET", f"/repos/{repository}/assignees", ok={403, 404})
        if not answer.is_success:
            return None
        return login.lower() in {str(one.get("login", "")).lower() for one in answer.json()}

    # --- files and commits

    def branch_head(self, repository: str, branch: str) -> str | None:
        """The newest commit of a branch."""
        found = self.get_or_none(f"/repos/{repository}/branches/{quote(branch, safe='')}")
        return str(found["commit"]["id"]) if found else None

    def has_commit(self, repository: str, sha: str) -> bool:
        """Whether the forge has a commit. Comparing it with itself answers 404 if not."""
        return self.get_or_none(_compare(repository, sha, sha)) is not None

    def contains(self, repository: str, head: str, sha: str) -> bool:
        """Whether the history of commit `head` contains commit `sha`."""
        found = self.get_or_none(_compare(repository, head, sha))
        return found is not None and found.get("total_commits") == 0

    def has_file(self, repository: str, branch: str, path: str) -> bool:
        """Whether a branch has a file. A path with `.` or `..` in it names none: it would change the address."""
        if {"", ".", ".."} & set(path.split("/")):
            return False
        url = f"/repos/{repository}/contents/{quote(path)}"
        return self.send("GET", url, query={"ref": branch}, ok={404}).is_success

    def file(self, repository: str, branch: str, path: str) -> str | None:
        """The text of a file on a branch. None for a folder, and for a file larger than LARGEST_FILE."""
        found = self.get_or_none(f"/repos/{repository}/contents/{quote(path)}", ref=branch)
        if not isinstance(found, dict) or found.get("type") != "file" or int(found.get("size") or 0) > LARGEST_FILE:
            return None
        try:
            return base64.b64decode(found.get("content") or "").decode(errors="replace")
        except binascii.Error:
            return None

    def check_state(self, repository: str, sha: str) -> str:
        """The state of all checks of a commit except ours: success, pending, failure, or "" if there is no check."""
        states = {one.state for one in self.statuses(repository, sha) if one.context != OUR_STATUS}
        return next((name for name, those in _CHECK_STATES if states & those), "")

    def statuses(self, repository: str, sha: str) -> list[CommitStatus]:
        """The newest status of each context of a commit; none if there is no such commit."""
        found = self.get_pages(f"/repos/{repository}/commits/{sha}/status", within="statuses", ok=frozenset({404}))
        return [models.parse_commit_status(one) for one in found]

    # --- pull requests

    def pull(self, repository: str, number: int) -> Pull | None:
        found = self.get_or_none(f"/repos/{repository}/pulls/{number}")
        return models.parse_pull(found) if found else None

    def find_pull(self, repository: str, branch: str, base: str) -> Pull | None:
        """The pull request from `branch` into `base`, in any state; an open one before a closed one."""
        found = self.get_or_none(f"/repos/{repository}/pulls/{quote(base, safe='')}/{quote(branch, safe='')}")
        return models.parse_pull(found, branch) if found else None

    def find_open_pull(self, repository: str, branch: str, base: str, heads: Collection[str] = ()) -> Pull | None:
        """The open pull request from `branch`, or one made by a push to `refs/for/` with `branch` as its topic.

        Every reader may push to `refs/for/`. So such a pull request counts only if we pushed it, or if its newest
        commit is in `heads`.
        """
        for found in self.get_pages(f"/repos/{repository}/pulls", state="open"):
            pull = models.parse_pull(found)
            ours = pull.author.id == self.bot().id and pull.branch.endswith(f"/{branch}")
            if pull.base == base and (pull.branch == branch or (pull.flow and (ours or pull.head in heads))):
                return pull
        return None

    def pull_files(self, repository: str, number: int) -> list[str]:
        """The files that a pull request changes, by old and new names. Raises Refused for MOST_ENTRIES or more."""
        found = self.get_pages(f"/repos/{repository}/pulls/{number}/files")
        if len(found) >= MOST_ENTRIES:
            raise Refused(
                Kind.INVALID,
                f"Pull request #{number} changes {MOST_ENTRIES} files or more, too many to check. Split it up.",
            )
        names = [one.get(name) for one in found for name in ("filename", "previous_filename")]
        return [str(name) for name in names if name]

    def reviews(self, repository: str, number: int) -> list[Review]:
        """The reviews of a pull request, oldest first, without our own, dismissed and pending ones."""
        found = self.get_pages(f"/repos/{repository}/pulls/{number}/reviews")
        reviews = [models.parse_review(one) for one in found if one.get("user") and not one.get("dismissed")]
        return [one for one in reviews if one.author.id != self.bot().id and one.state in _REVIEW_STATES]

    def review_comments(self, repository: str, number: int, review: int) -> list[ReviewComment]:
        """The comments of a review and the replies to them, sorted by file and line. The forge sends them unsorted."""
        found = self.get_list(f"/repos/{repository}/pulls/{number}/reviews/{review}/comments")
        found.sort(key=lambda one: (str(one.get("path")), int(one.get("position") or 0), int(one.get("id") or 0)))
        return [models.parse_review_comment(one) for one in found]


def _comments(found: list[Found]) -> list[Comment]:
    return [comment for one in found if (comment := models.parse_comment(one))]


def _has_label(issue: Issue, prefix: str) -> bool:
    return any(label.lower().startswith(prefix) for label in issue.labels)


def _adds_label(entry: TimelineEntry, prefix: str) -> bool:
    return entry.kind == "label" and entry.added and entry.label.lower().startswith(prefix)


def _newest(entries: list[TimelineEntry]) -> Requester | None:
    return Requester(entries[-1].account, entries[-1].id) if entries else None


def _compare(repository: str, base: str, head: str) -> str:
    return f"/repos/{repository}/compare/{quote(base, safe='')}...{quote(head, safe='')}"

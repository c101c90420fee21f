"""What we ask a forge: repositories, issues, pull requests, reviews, files, rights."""

import base64
import binascii
from collections.abc import Collection
from urllib.parse import quote

import httpx

from app.domain.errors import Kind, Refused
from app.forgejo import models
from app.forgejo.http import MOST, Json, Wire
from app.ports import Account, Asker, Comment, Issue, Note, Pull, Repository, Review

WRITERS = frozenset({"write", "admin", "owner"})
LARGEST_FILE = 256 * 1024
NONE_SUCH = frozenset({403, 404})
OUR_STATUS = "agent-fleet/task"


class Reading(Wire):
    """The reading half of a forge."""

    _bot: Account | None = None

    def bot(self) -> Account:
        """The account that our token belongs to; a token that may not ask for it needs `bot_id` in fleet.toml."""
        if self._bot is None:
            answer = self.send("GET", "/user", ok={403} if self._bot_id else set())
            self._bot = models.account(answer.json()) if answer.is_success else Account(self._bot_id or 0, "")
        return self._bot

    # --- repositories and issues

    def repository(self, full_name: str) -> Repository | None:
        found = self.find(f"/repos/{full_name}")
        return found and models.repository(found)

    def repository_by_id(self, id_: int) -> Repository | None:
        """By the forge's own number, which survives a rename."""
        found = self.find(f"/repositories/{id_}")
        return found and models.repository(found)

    def repositories_of(self, owner: str) -> list[Repository]:
        """An owner's repositories that we can see and that are not archived."""
        where = f"/orgs/{owner}/repos"
        if self.find(where, limit=1) is None:
            where = f"/users/{owner}/repos"
        return [models.repository(one) for one in self.pages(where) if not one.get("archived")]

    def issue(self, repository: str, number: int) -> Issue | None:
        found = self.find(f"/repos/{repository}/issues/{number}")
        return models.issue(found) if found and not found.get("pull_request") else None

    def wanted_issues(self, repository: str, prefix: str) -> list[int]:
        """The numbers of open issues that bear a label starting with `prefix` or are assigned to us."""
        found = self.pages(f"/repos/{repository}/issues", state="open", type="issues")
        issues = [models.issue(one) for one in found if not one.get("pull_request")]
        return [one.number for one in issues if _is_labelled(one, prefix) or self.is_assigned(one)]

    def is_assigned(self, issue: Issue) -> bool:
        """Whether we are among an issue's assignees."""
        return bool(issue.assignees) and self.bot().id in [one.id for one in issue.assignees]

    def changed_issues(self, repository: str, since: str) -> list[tuple[int, bool]]:
        """Issues and pull requests that changed since a moment of the forge's own clock: number, and whether it is a
        pull request."""
        found = self.pages(f"/repos/{repository}/issues", state="all", since=since)
        return [(one["number"], bool(one.get("pull_request"))) for one in found]

    def comments_since(self, repository: str, since: str) -> list[Comment]:
        """Comments on issues and pull requests that were written or edited since then."""
        found = self.pages(f"/repos/{repository}/issues/comments", since=since)
        return [comment for one in found if (comment := models.comment(one))]

    def comments(self, repository: str, number: int) -> list[Comment]:
        """What is said under an issue or a pull request, oldest first."""
        found = self.whole(f"/repos/{repository}/issues/{number}/comments")
        return [comment for one in found if (comment := models.comment(one))]

    def who_labelled(self, repository: str, number: int, prefix: str) -> Asker | None:
        """Who put the newest label that starts with `prefix` on an issue, by its timeline."""
        timeline = self.pages(f"/repos/{repository}/issues/{number}/timeline", gaps=True)
        put = [entry for entry in timeline if entry.get("user") and _puts_a_label(entry, prefix)]
        return Asker(models.account(put[-1]["user"]), int(put[-1]["id"])) if put else None

    def who_assigned(self, repository: str, number: int) -> Asker | None:
        """Who assigned an issue to us and was not taken back; None too where we did that ourselves."""
        timeline = self.pages(f"/repos/{repository}/issues/{number}/timeline", gaps=True)
        ours = [entry for entry in timeline if entry.get("user") and self._is_about_us(entry)]
        if not ours or ours[-1].get("removed_assignee") or ours[-1]["user"]["id"] == self.bot().id:
            return None
        return Asker(models.account(ours[-1]["user"]), int(ours[-1]["id"]))

    def who_reopened(self, repository: str, number: int) -> Asker | None:
        """Who opened an issue again last, by its timeline."""
        timeline = self.pages(f"/repos/{repository}/issues/{number}/timeline", gaps=True)
        again = [entry for entry in timeline if entry.get("user") and entry.get("type") == "reopen"]
        return Asker(models.account(again[-1]["user"]), int(again[-1]["id"])) if again else None

    def _is_about_us(self, entry: Json) -> bool:
        return entry.get("type") == "assignees" and (entry.get("assignee") or {}).get("id") == self.bot().id

    def may_write(self, repository: str, login: str) -> bool | None:
        """Whether somebody may write to a repository; None where our token may not ask (that takes an admin's)."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
        answer = self.send("GET", path, ok={403, 404})
        if answer.status_code == httpx.codes.FORBIDDEN:
            return None
        return answer.is_success and answer.json().get("permission") in WRITERS

    def is_assignable(self, repository: str, login: str) -> bool | None:
        """Whether somebody can be given issues, which the forge offers those alone who may write; None where it does
        not say. Anybody may ask this."""
        found = self.send("GET", f"/repos/{repository}/assignees", ok={403, 404})
        if not found.is_success:
            return None
        return login.lower() in {str(one.get("login", "")).lower() for one in found.json()}

    # --- files and commits

    def branch_head(self, repository: str, branch: str) -> str | None:
        """The newest commit of a branch, None when there is no such branch."""
        found = self.find(f"/repos/{repository}/branches/{quote(branch, safe='')}")
        return str(found["commit"]["id"]) if found else None

    def has_commit(self, repository: str, sha: str) -> bool:
        """Whether the forge holds a commit; one that is compared with itself is either there or not found."""
        return self.find(f"/repos/{repository}/compare/{quote(sha, safe='')}...{quote(sha, safe='')}") is not None

    def contains(self, repository: str, head: str, sha: str) -> bool:
        """Whether `head` is a commit that comes after `sha`, so that nothing of that is missing there."""
        found = self.find(f"/repos/{repository}/compare/{quote(head, safe='')}...{quote(sha, safe='')}")
        return found is not None and found.get("total_commits") == 0

    def has_file(self, repository: str, branch: str, path: str) -> bool:
        """Whether a file stands on a branch. A path that would climb out of the address names none."""
        if {"", ".", ".."} & set(path.split("/")):
            return False
        where = f"/repos/{repository}/contents/{quote(path)}"
        return self.send("GET", where, query={"ref": branch}, ok={404}).is_success

    def file(self, repository: str, branch: str, path: str) -> str | None:
        """The text of a file on a branch; None when it is not there, is no file, or is too large to be meant."""
        found = self.find(f"/repos/{repository}/contents/{quote(path)}", ref=branch)
        if not isinstance(found, dict) or found.get("type") != "file" or int(found.get("size") or 0) > LARGEST_FILE:
            return None
        try:
            return base64.b64decode(found.get("content") or "").decode(errors="replace")
        except binascii.Error:
            return None

    def ci(self, repository: str, sha: str) -> str:
        """How the checks of a commit stand together, ours left out: success, pending, failure, or "" without any."""
        states = {one["status"] for one in self.statuses(repository, sha) if one.get("context") != OUR_STATUS}
        return next((name for name, those in _TOGETHER if states & those), "")

    def statuses(self, repository: str, sha: str) -> list[Json]:
        """The newest status of each context of a commit; none where there is no such commit."""
        return self.pages(f"/repos/{repository}/commits/{sha}/status", within="statuses", ok=frozenset({404}))

    # --- pull requests

    def pull(self, repository: str, number: int) -> Pull | None:
        found = self.find(f"/repos/{repository}/pulls/{number}")
        return models.pull(found) if found else None

    def pull_for(self, repository: str, branch: str, base: str) -> Pull | None:
        """The pull request from `branch` into `base`, in whatever state; an open one before any other."""
        found = self.find(f"/repos/{repository}/pulls/{quote(base, safe='')}/{quote(branch, safe='')}")
        return models.pull(found, branch) if found else None

    def open_pull_for(self, repository: str, branch: str, base: str, heads: Collection[str] = ()) -> Pull | None:
        """The open pull request from `branch`, or one that was pushed to `refs/for/` with it as topic. Whoever may read
        may push such a one: it counts if we did it ourselves, or if its newest commit is among `heads`."""
        for found in self.pages(f"/repos/{repository}/pulls", state="open"):
            pull = models.pull(found)
            ours = pull.author.id == self.bot().id and pull.branch.endswith(f"/{branch}")
            if pull.base == base and (pull.branch == branch or (pull.flow and (ours or pull.head in heads))):
                return pull
        return None

    def pull_files(self, repository: str, number: int) -> list[str]:
        """The files that a pull request changes, by the names that they had and have. Raises Refused where there are
        more than anybody can look at."""
        found = self.pages(f"/repos/{repository}/pulls/{number}/files")
        if len(found) >= MOST:
            raise Refused(Kind.INVALID, f"Pull request #{number} changes {MOST} files or more, too many to look at.")
        names = [one.get(name) for one in found for name in ("filename", "previous_filename")]
        return [str(name) for name in names if name]

    def reviews(self, repository: str, number: int) -> list[Review]:
        """What others said of a pull request and did not take back, oldest first, their notes on lines not fetched."""
        found = self.pages(f"/repos/{repository}/pulls/{number}/reviews")
        those = [models.review(one) for one in found if one.get("user") and not one.get("dismissed")]
        return [one for one in those if one.by.id != self.bot().id and one.state in _SAID]

    def review_notes(self, repository: str, number: int, review: int) -> list[Note]:
        """The notes of a review, and what others answered to them, by their place: they come in any order."""
        found = self.whole(f"/repos/{repository}/pulls/{number}/reviews/{review}/comments")
        found.sort(key=lambda one: (str(one.get("path")), int(one.get("position") or 0), int(one.get("id") or 0)))
        return [models.note(one) for one in found]


def _is_labelled(issue: Issue, prefix: str) -> bool:
    return any(label.lower().startswith(prefix) for label in issue.labels)


def _puts_a_label(entry: Json, prefix: str) -> bool:
    name = str((entry.get("label") or {}).get("name", ""))
    return entry.get("type") == "label" and entry.get("body") == "1" and name.lower().startswith(prefix)


_SAID = frozenset({"APPROVED", "REQUEST_CHANGES", "COMMENT"})
_TOGETHER = (
    ("failure", {"failure", "error"}),
    ("pending", {"pending"}),
    ("success", {"success", "warning", "skipped"}),
)

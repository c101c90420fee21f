"""Writes to the forge's API: pull requests, comments, labels, statuses. A repeated write does nothing."""

from collections.abc import Mapping, Sequence

import httpx

from app.domain.errors import Kind, Refused, Unavailable
from app.forgejo import models
from app.forgejo.models import Label
from app.forgejo.queries import HIDDEN_OR_MISSING, OUR_STATUS, Queries
from app.ports import Pull

LABEL_COLOUR = "1d76db"
REVIEWER_REJECTED = frozenset({403, 404, 422})  # unknown, without permission, or the author of the pull request


class Forgejo(Queries):
    """One forge. Calls raise Unavailable if it does not answer, Refused if it rejects the call."""

    # --- pull requests

    def create_pull(self, repository: str, branch: str, base: str, title: str, body: str) -> Pull:
        """Create a pull request; returns the open one if there is one."""
        new = {"head": branch, "base": base, "title": title, "body": body}
        answer = self.send("POST", f"/repos/{repository}/pulls", new, ok={409})
        if answer.status_code != httpx.codes.CONFLICT:
            return models.parse_pull(answer.json())
        pull = self.find_open_pull(repository, branch, base)
        if pull is None:
            raise Unavailable(f"The forge says that a pull request from {branch} exists, but does not list it.")
        return pull

    def set_pull_title(self, repository: str, number: int, title: str) -> None:
        self.send("PATCH", f"/repos/{repository}/pulls/{number}", {"title": title})

    def set_pull_body(self, repository: str, number: int, body: str) -> None:
        self.send("PATCH", f"/repos/{repository}/pulls/{number}", {"body": body})

    def close_pull(self, repository: str, number: int) -> None:
        self.send("PATCH", f"/repos/{repository}/pulls/{number}", {"state": "closed"})

    def request_reviews(self, repository: str, number: int, logins: Sequence[str]) -> None:
        """Request reviews. A second request changes nothing. If the forge rejects the list, each login is tried alone;
        Refused names those that were rejected."""
        path = f"/repos/{repository}/pulls/{number}/requested_reviewers"
        if self._request_reviews(path, logins):
            return
        rejected = [login for login in logins if not self._request_reviews(path, [login])]
        if rejected:
            raise Refused(
                Kind.INVALID, f"The forge {self.name} does not accept {', '.join(rejected)} as reviewers of #{number}."
            )

    def _request_reviews(self, path: str, logins: Sequence[str]) -> bool:
        return self.send("POST", path, {"reviewers": list(logins)}, ok=REVIEWER_REJECTED).is_success

    def set_commit_status(self, repository: str, sha: str, state: str, target: str, description: str) -> None:
        """Set our status of a commit, with a link to `target`, unless it says this already."""
        ours = next((one for one in self.statuses(repository, sha) if one.context == OUR_STATUS), None)
        if ours and (ours.state, ours.description) == (state, description):
            return
        body = {"state": state, "context": OUR_STATUS, "target_url": target, "description": description}
        self.send("POST", f"/repos/{repository}/statuses/{sha}", body)

    # --- comments, reactions, assignees

    def write_comment(self, repository: str, number: int, marker: str, body: str, known: int | None) -> int:
        """Write our one comment that ends with the line `marker`: edit it if it exists, else create it.

        `known` is its id, if we remember it. Returns its id.
        """
        text = f"{body}\n\n{marker}"
        if known and self._edit_comment(repository, known, text):
            return known
        ours = self._find_comment(repository, number, marker)
        if ours and self._edit_comment(repository, ours, text):
            return ours
        return int(self.send("POST", f"/repos/{repository}/issues/{number}/comments", {"body": text}).json()["id"])

    def _edit_comment(self, repository: str, comment: int, text: str) -> bool:
        """Edit a comment; False if it was deleted."""
        answer = self.send("PATCH", f"/repos/{repository}/issues/comments/{comment}", {"body": text}, ok={404})
        return answer.status_code != httpx.codes.NOT_FOUND

    def _find_comment(self, repository: str, number: int, marker: str) -> int | None:
        """Our own comment that ends with `marker`. A copy by another account does not count."""
        for one in self.get_list(f"/repos/{repository}/issues/{number}/comments"):
            if one["user"]["id"] == self.bot().id and (one.get("body") or "").rstrip().endswith(marker):
                return int(one["id"])
        return None

    def add_reaction(self, repository: str, comment: int, content: str) -> None:
        """Add a reaction to a comment, unless it is there or the comment is gone."""
        path = f"/repos/{repository}/issues/comments/{comment}/reactions"
        self.send("POST", path, {"content": content}, ok={403, 404})

    def assign_bot(self, repository: str, number: int) -> None:
        """Add us to the assignees of an issue. Does nothing if our token may not read our login."""
        if not self.bot().login:
            return
        issue = self.get_or_none(f"/repos/{repository}/issues/{number}")
        if issue is None:
            return
        logins = [one["login"] for one in issue.get("assignees") or ()]
        if self.bot().login not in logins:
            self.send("PATCH", f"/repos/{repository}/issues/{number}", {"assignees": [*logins, self.bot().login]})

    # --- labels

    def set_labels(self, repository: str, number: int, wanted: Mapping[str, str], ours: frozenset[str]) -> None:
        """Of the labels named in `ours`, put exactly `wanted` (name -> description) on an issue.

        Creates labels that the repository lacks. Does not touch other labels. Raises Refused if the forge dropped one.
        """
        path = f"/repos/{repository}/issues/{number}/labels"
        present = {label.name: label.id for label in map(models.parse_label, self.get_list(path))}
        for name in sorted(ours & present.keys() - wanted.keys()):
            self.send("DELETE", f"{path}/{present[name]}", ok={404, 422})
        missing = [name for name in wanted if name not in present]
        if missing:
            ids = [self._label_id(repository, name, wanted[name]) for name in missing]
            now = self.send("POST", path, {"labels": ids}).json()
            self._check_labels(number, set(missing) - {label["name"] for label in now})

    def _check_labels(self, number: int, dropped: set[str]) -> None:
        if dropped:
            raise Refused(
                Kind.INVALID,
                f"The forge {self.name} did not put {', '.join(sorted(dropped))} on #{number}: "
                "check that the bot has write permission.",
            )

    def _label_id(self, repository: str, name: str, description: str) -> int:
        """The id of a label, which is created if neither the repository nor its organisation has it."""
        found = self._find_label(repository, name)
        if found is not None:
            return found
        new = {"name": name, "color": f"#{LABEL_COLOUR}", "description": description, "exclusive": "/" in name}
        made = models.parse_label(self.send("POST", f"/repos/{repository}/labels", new).json())
        return self.delete_duplicate_label(repository, made)

    def _find_label(self, repository: str, name: str) -> int | None:
        owner = repository.split("/", 1)[0]
        for path, ok in ((f"/repos/{repository}/labels", frozenset()), (f"/orgs/{owner}/labels", HIDDEN_OR_MISSING)):
            for label in map(models.parse_label, self.get_pages(path, ok=ok)):
                if label.name == name:
                    return label.id
        return None

    def delete_duplicate_label(self, repository: str, made: Label) -> int:
        """Names are not unique, so two workers can create the same label. Both use the older one and one is deleted."""
        found = map(models.parse_label, self.get_pages(f"/repos/{repository}/labels"))
        oldest = min([made.id, *(label.id for label in found if label.name == made.name)])
        if oldest != made.id:
            self.send("DELETE", f"/repos/{repository}/labels/{made.id}", ok={404})
        return oldest

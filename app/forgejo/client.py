"""A thin client of Forgejo's API, in our words. Every write looks first whether it was done before."""

from collections.abc import Mapping, Sequence

import httpx

from app.domain.errors import Kind, Refused, Unavailable
from app.forgejo import models
from app.forgejo.queries import NONE_SUCH, OUR_STATUS, Reading
from app.ports import Pull

LABEL_COLOURS = "1d76db"
NOT_HIM = frozenset({403, 404, 422})  # unknown, without the right, or the one who opened it


class Forgejo(Reading):
    """One forge. Calls raise Unavailable when it did not answer, Refused when it said no."""

    # --- pull requests

    def open_pull(self, repository: str, branch: str, base: str, title: str, body: str) -> Pull:
        """Open a pull request, or adopt the open one that there is."""
        asked = {"head": branch, "base": base, "title": title, "body": body}
        answer = self.send("POST", f"/repos/{repository}/pulls", asked, ok={409})
        if answer.status_code != httpx.codes.CONFLICT:
            return models.pull(answer.json())
        pull = self.open_pull_for(repository, branch, base)
        if pull is None:
            raise Unavailable(f"The forge says that a pull request from {branch} exists, and does not list it.")
        return pull

    def retitle(self, repository: str, number: int, title: str) -> None:
        self.send("PATCH", f"/repos/{repository}/pulls/{number}", {"title": title})

    def close_pull(self, repository: str, number: int) -> None:
        self.send("PATCH", f"/repos/{repository}/pulls/{number}", {"state": "closed"})

    def describe(self, repository: str, number: int, body: str) -> None:
        self.send("PATCH", f"/repos/{repository}/pulls/{number}", {"body": body})

    def ask_review(self, repository: str, number: int, logins: Sequence[str]) -> None:
        """Ask for reviews; asking somebody who is asked already changes nothing. Where the forge takes not all of them
        at once they are asked one by one, and Refused names those that it will not have."""
        path = f"/repos/{repository}/pulls/{number}/requested_reviewers"
        if self.send("POST", path, {"reviewers": list(logins)}, ok=NOT_HIM).is_success:
            return
        refused = [one for one in logins if not self.send("POST", path, {"reviewers": [one]}, ok=NOT_HIM).is_success]
        if refused:
            raise Refused(Kind.INVALID, f"The forge {self.name} lets {', '.join(refused)} review nothing here.")

    def set_status(self, repository: str, sha: str, state: str, target: str, description: str) -> None:
        """Have our commit status say this; one that says it already is not written again. The newest wins."""
        known = self.statuses(repository, sha)
        ours: Mapping[str, str] = next((one for one in known if one.get("context") == OUR_STATUS), {})
        if (ours.get("status"), ours.get("description")) == (state, description):
            return
        body = {"state": state, "context": OUR_STATUS, "target_url": target, "description": description}
        self.send("POST", f"/repos/{repository}/statuses/{sha}", body)

    # --- what we write on an issue

    def comment_once(self, repository: str, number: int, marker: str, body: str, known: int | None) -> int:
        """Have exactly one comment of ours with `marker` as its last line say `body`; returns its id."""
        text = f"{body}\n\n{marker}"
        if known and self._edit_comment(repository, known, text):
            return known
        mine = self._comment_with(repository, number, marker)
        if mine and self._edit_comment(repository, mine, text):
            return mine
        return int(self.send("POST", f"/repos/{repository}/issues/{number}/comments", {"body": text}).json()["id"])

    def _edit_comment(self, repository: str, comment: int, text: str) -> bool:
        """False when somebody deleted it."""
        answer = self.send("PATCH", f"/repos/{repository}/issues/comments/{comment}", {"body": text}, ok={404})
        return answer.status_code != httpx.codes.NOT_FOUND

    def _comment_with(self, repository: str, number: int, marker: str) -> int | None:
        """Our own comment that ends with `marker`; anybody else's copy of it does not count."""
        for one in self.whole(f"/repos/{repository}/issues/{number}/comments"):
            if one["user"]["id"] == self.bot().id and (one.get("body") or "").rstrip().endswith(marker):
                return int(one["id"])
        return None

    def react(self, repository: str, comment: int, content: str) -> None:
        """Put a reaction under a comment, once; a comment that is gone needs none."""
        path = f"/repos/{repository}/issues/comments/{comment}/reactions"
        self.send("POST", path, {"content": content}, ok={403, 404})

    def assign(self, repository: str, number: int) -> None:
        """Have us among the assignees of an issue; the others stay. Not where our token may not ask our name."""
        if not self.bot().login:
            return
        found = self.find(f"/repos/{repository}/issues/{number}")
        if found is None:
            return
        had = [one["login"] for one in found.get("assignees") or ()]
        if self.bot().login not in had:
            self.send("PATCH", f"/repos/{repository}/issues/{number}", {"assignees": [*had, self.bot().login]})

    def set_labels(self, repository: str, number: int, wanted: Mapping[str, str], ours: frozenset[str]) -> None:
        """Of the labels named in `ours` have just `wanted` (name -> description) on the issue; make those the
        repository lacks. Labels of others are left alone. A label that did not come to stand there is Refused."""
        present = {label["name"]: label["id"] for label in self.whole(f"/repos/{repository}/issues/{number}/labels")}
        for name in sorted(ours & present.keys() - wanted.keys()):
            self.send("DELETE", f"/repos/{repository}/issues/{number}/labels/{present[name]}", ok={404, 422})
        missing = [name for name in wanted if name not in present]
        if missing:
            ids = [self._label_id(repository, name, wanted[name]) for name in missing]
            answer = self.send("POST", f"/repos/{repository}/issues/{number}/labels", {"labels": ids}).json()
            lost = set(missing) - {label["name"] for label in answer}
            if lost:
                raise Refused(
                    Kind.INVALID, f"The forge {self.name} did not put {', '.join(sorted(lost))} on #{number}."
                )

    def _label_id(self, repository: str, name: str, description: str) -> int:
        """Names are not unique: one is looked for, among the organisation's too, before one is made."""
        owner = repository.split("/", 1)[0]
        for label in self.pages(f"/repos/{repository}/labels"):
            if label["name"] == name:
                return int(label["id"])
        for label in self.pages(f"/orgs/{owner}/labels", ok=NONE_SUCH):
            if label["name"] == name:
                return int(label["id"])
        new = {"name": name, "color": f"#{LABEL_COLOURS}", "description": description, "exclusive": "/" in name}
        return self._only(repository, name, int(self.send("POST", f"/repos/{repository}/labels", new).json()["id"]))

    def _only(self, repository: str, name: str, made: int) -> int:
        """Two who make a label at once both come to use the older one; the other goes."""
        all_ = self.pages(f"/repos/{repository}/labels")
        first = min([made, *(label["id"] for label in all_ if label["name"] == name)])
        if first != made:
            self.send("DELETE", f"/repos/{repository}/labels/{made}", ok={404})
        return int(first)

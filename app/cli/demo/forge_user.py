"""Acts as a user of a forge over its API: what people do in the demo and in the journeys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from app.forgejo.http import certificates

EVENTS = (
    "issues", "issue_comment", "pull_request", "push", "create", "delete", "action_run_success", "action_run_failure",
    "action_run_recover",
)  # fmt: skip


@dataclass(frozen=True)
class Issue:
    """An issue as the forge shows it: its state, `open` or `closed`, and the names of its labels."""

    state: str
    labels: frozenset[str]


class ForgeUser:
    """A user with a token. Every call raises httpx.HTTPStatusError when the forge refuses it."""

    def __init__(self, url: str, token: str) -> None:
        self.token = token
        headers = {"Authorization": f"token {token}"}
        self._http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, verify=certificates(), timeout=10)

    def add_webhook(self, repository: str, url: str, secret: str) -> None:
        config = {"url": url, "content_type": "json", "secret": secret}
        hook = {"type": "forgejo", "active": True, "config": config, "events": list(EVENTS)}
        self._post(f"/repos/{repository}/hooks", hook)

    def label(self, repository: str, name: str) -> int:
        """The id of a label; creates the label if the repository lacks it."""
        path = f"/repos/{repository}/labels"
        ids = [label["id"] for label in self._get(path) if label["name"] == name]
        return int(ids[0] if ids else self._post(path, {"name": name, "color": "#0e8a16"})["id"])

    def open_issue(self, repository: str, title: str, body: str, labels: list[int]) -> int:
        """The number of the new issue."""
        issue = {"title": title, "body": body, "labels": labels}
        return int(self._post(f"/repos/{repository}/issues", issue)["number"])

    def issue(self, repository: str, number: int) -> Issue:
        found = self._get(f"/repos/{repository}/issues/{number}")
        return Issue(found["state"], frozenset(label["name"] for label in found["labels"]))

    def comments(self, repository: str, number: int) -> list[str]:
        """The texts of an issue's comments, oldest first."""
        return [comment["body"] for comment in self._get(f"/repos/{repository}/issues/{number}/comments")]

    def request_changes(self, repository: str, pull: int, text: str) -> None:
        self._post(f"/repos/{repository}/pulls/{pull}/reviews", {"event": "REQUEST_CHANGES", "body": text})

    def merge(self, repository: str, pull: int) -> None:
        """Remove the title's prefix `WIP: `, if there is one, then merge."""
        path = f"/repos/{repository}/pulls/{pull}"
        found = self._get(path)
        title = found["title"].removeprefix("WIP: ")
        if title != found["title"]:
            self._http.patch(path, json={"title": title}).raise_for_status()
        order = {"Do": "merge", "head_commit_id": found["head"]["sha"]}
        self._http.post(f"{path}/merge", json=order).raise_for_status()

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def _post(self, path: str, body: Mapping[str, object]) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()

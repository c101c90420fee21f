"""A person on a forge, by its API: what humans do in the demo."""

from typing import Any

import httpx

from app.forgejo.http import certificates

EVENTS = [
    "issues",
    "issue_comment",
    "pull_request",
    "push",
    "create",
    "delete",
    "action_run_success",
    "action_run_failure",
    "action_run_recover",
]


class ForgeUser:
    """Somebody with a token. Every call raises httpx.HTTPStatusError when the forge says no."""

    def __init__(self, url: str, token: str) -> None:
        self.token = token
        headers = {"Authorization": f"token {token}"}
        self._http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, verify=certificates(), timeout=10)

    def hook(self, repository: str, url: str, secret: str) -> None:
        config = {"url": url, "content_type": "json", "secret": secret}
        self._post(
            f"/repos/{repository}/hooks",
            {"type": "forgejo", "active": True, "config": config, "events": EVENTS},
        )

    def label(self, repository: str, name: str) -> int:
        """The id of a label, made if the repository lacks it."""
        found = [label["id"] for label in self._get(f"/repos/{repository}/labels") if label["name"] == name]
        return int(
            found[0] if found else self._post(f"/repos/{repository}/labels", {"name": name, "color": "#0e8a16"})["id"]
        )

    def open_issue(self, repository: str, title: str, body: str, labels: list[int]) -> int:
        return int(
            self._post(f"/repos/{repository}/issues", {"title": title, "body": body, "labels": labels})["number"]
        )

    def issue(self, repository: str, number: int) -> Any:
        return self._get(f"/repos/{repository}/issues/{number}")

    def comments(self, repository: str, number: int) -> list[str]:
        return [comment["body"] for comment in self._get(f"/repos/{repository}/issues/{number}/comments")]

    def ask_for_changes(self, repository: str, pull: int, text: str) -> None:
        self._post(f"/repos/{repository}/pulls/{pull}/reviews", {"event": "REQUEST_CHANGES", "body": text})

    def merge(self, repository: str, pull: int) -> None:
        """Take the mark of unfinished work away where there is one, then merge."""
        found = self._get(f"/repos/{repository}/pulls/{pull}")
        head, title = found["head"]["sha"], found["title"].removeprefix("WIP: ")
        if title != found["title"]:
            self._http.patch(f"/repos/{repository}/pulls/{pull}", json={"title": title}).raise_for_status()
        self._http.post(
            f"/repos/{repository}/pulls/{pull}/merge", json={"Do": "merge", "head_commit_id": head}
        ).raise_for_status()

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()

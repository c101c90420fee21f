"""Starts and stops the fake forge, fills it with users and repositories, and lists its webhook deliveries."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx
from werkzeug.serving import BaseWSGIServer, make_server

from . import branches, webhook_payloads
from .action_runs import finish
from .app import WsgiFrontend
from .contract import Contract
from .deliveries import Delivery, WebhookSender
from .faults import Faults
from .http_server import KeepAlive, cut, listen
from .models import Json, Label, Repository
from .store import Store, system_clock

HOOK_EVENTS = [
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


class FakeForge:
    def __init__(
        self, root: Path, port: int = 0, description: Path | None = None, clock: Callable[[], datetime] = system_clock
    ) -> None:
        self.faults = Faults()
        self.webhooks = WebhookSender(self.faults)
        self.store = Store(Path(root), self.webhooks, clock)
        self.contract = Contract(description) if description else None
        self.frontend = WsgiFrontend(self.store, self.faults, self.contract)
        self.port = port
        self.server: BaseWSGIServer | None = None
        self.open_sockets: set[socket.socket] = set()

    def start(self) -> Self:
        """Listen; after stop() again on the same port, with everything it knew."""
        handler = type("Handler", (KeepAlive,), {"open_sockets": self.open_sockets})
        with listen(self.port) as listener:
            self.port = listener.getsockname()[1]
            self.server = make_server(
                "127.0.0.1", self.port, self.frontend, True, request_handler=handler, fd=listener.fileno()
            )
        self.store.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True, name="forge").start()
        return self

    def stop(self) -> None:
        """Stop listening and cut every connection, as a crash would."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        self.faults.clear()
        self.webhooks.close()
        for each in list(self.open_sockets):
            cut(each)

    def __enter__(self) -> Self:
        return self if self.server else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def calls(self) -> list[str]:
        """Every call so far, as `GET /repos/...`."""
        return self.frontend.calls

    @property
    def violations(self) -> list[str]:
        """Where a call or an answer was not as Forgejo's own API description says."""
        return self.contract.violations if self.contract else []

    def add_user(self, login: str, full_name: str = "", is_admin: bool = False) -> str:
        with self.store.lock:
            return self.store.add_user(login, full_name, is_admin)

    def limit(self, token: str, *scopes: str) -> None:
        """Have the token allow nothing but this: `write:issue`, `read:user` and so on."""
        with self.store.lock:
            self.store.scopes[token] = set(scopes)

    def add_organisation(self, login: str, owners: list[str]) -> None:
        with self.store.lock:
            self.store.add_organisation(login, owners)

    def add_repository(self, full_name: str, files: dict[str, str] | None = None, private: bool = False) -> Repository:
        with self.store.lock:
            return self.store.add_repository(full_name, files or {"README.md": f"# {full_name}\n"}, private)

    def rename(self, full_name: str, new_name: str) -> None:
        with self.store.lock:
            self.store.rename(full_name, new_name)

    def collaborate(self, full_name: str, login: str, permission: str) -> None:
        with self.store.lock:
            self.repository(full_name).collaborators[self.store.users[login.lower()].login] = permission

    def add_label(self, full_name: str, name: str, exclusive: bool = False) -> Label:
        with self.store.lock:
            return self.store.add_label(self.repository(full_name), name, exclusive=exclusive)

    def add_hook(self, full_name: str, token: str, url: str, secret: str = "", **more: Any) -> int:
        """Through the API, as a person with this token would."""
        order: Json = {
            "type": "forgejo",
            "active": True,
            "events": HOOK_EVENTS,
            "config": {"url": url, "content_type": "json", "secret": secret},
        } | more
        answer = self.client(token).post(f"/repos/{full_name}/hooks", json=order).raise_for_status()
        return int(answer.json()["id"])

    def repository(self, full_name: str) -> Repository:
        return self.store.repositories[full_name.lower()]

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"token {token}"},
            trust_env=False,
            verify=False,  # it speaks plain HTTP: reading the machine's certificates would only take time
            timeout=10,
        )

    def clone_url(self, full_name: str, token: str) -> str:
        return f"{self.url}/{full_name}.git".replace("://", f"://x:{token}@")

    def commit(self, full_name: str, login: str, branch: str, files: dict[str, str | None], message: str) -> str:
        """Commit onto a branch as if this person had pushed it."""
        with self.store.lock:
            return branches.write_file(
                self.store,
                self.repository(full_name),
                self.store.users[login.lower()],
                branch,
                files,
                message,
            )

    def run_ci(self, full_name: str, sha: str, status: str, workflow: str = "test.yml") -> None:
        """A run of Forgejo Actions ended: a commit status, and action_run_* deliveries."""
        with self.store.lock:
            finish(self.store, self.repository(full_name), sha, status, workflow)

    def test_delivery(self, full_name: str, login: str) -> None:
        with self.store.lock:
            repo = self.repository(full_name)
            for hook in self.store.hooks.values():
                body = webhook_payloads.test_push(self.store, repo, self.store.users[login.lower()])
                self.webhooks.send(hook, "push", body)

    @property
    def deliveries(self) -> list[Delivery]:
        return list(self.webhooks.deliveries)

    @property
    def dropped(self) -> list[Delivery]:
        return list(self.webhooks.dropped)

    def deliver_again(self, number: int, new_id: bool = True) -> None:
        self.webhooks.again(number, new_id)

    def wait_for_deliveries(self, timeout: float = 60) -> None:
        """Wait until everything announced was sent."""
        if not self.webhooks.wait_until_sent(timeout):
            raise TimeoutError(f"{self.webhooks.pending} deliveries are still under way after {timeout} s")

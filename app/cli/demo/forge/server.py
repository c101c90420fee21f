"""FakeForge: start it, make people and repositories, look at what was sent, break things, stop it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx
from werkzeug.serving import BaseWSGIServer, make_server

from . import branches, payloads
from .app import Door
from .contract import Contract
from .deliveries import Delivery, Post
from .faults import Faults
from .runs import finish
from .serving import KeepAlive, cut, listen
from .state import Json, Label, Repository
from .world import World, system_clock

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
        self, root: Path, port: int = 0, check: bool = True, clock: Callable[[], datetime] = system_clock
    ) -> None:
        self.faults = Faults()
        self.post = Post(self.faults)
        self.world = World(Path(root), self.post, clock)
        self.contract = Contract() if check else None
        self.door = Door(self.world, self.faults, self.contract)
        self.port = port
        self.server: BaseWSGIServer | None = None
        self.open_sockets: set[socket.socket] = set()

    def start(self) -> Self:
        """Listen; after stop() again on the same port, with everything it knew."""
        handler = type("Handler", (KeepAlive,), {"open_sockets": self.open_sockets})
        with listen(self.port) as door:
            self.port = door.getsockname()[1]
            self.server = make_server(
                "127.0.0.1", self.port, self.door, True, request_handler=handler, fd=door.fileno()
            )
        self.world.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True, name="forge").start()
        return self

    def stop(self) -> None:
        """Stop listening and cut every connection, as a crash would."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        self.faults.clear()
        self.post.close()
        for each in list(self.open_sockets):
            cut(each)

    def __enter__(self) -> Self:
        return self if self.server else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return self.world.url

    @property
    def calls(self) -> list[str]:
        """Every call so far, as `GET /repos/...`."""
        return self.door.calls

    @property
    def violations(self) -> list[str]:
        """Where a call or an answer was not as Forgejo's own API description says."""
        return self.contract.violations if self.contract else []

    def add_user(self, login: str, full_name: str = "", is_admin: bool = False) -> str:
        with self.world.lock:
            return self.world.add_user(login, full_name, is_admin)

    def limit(self, token: str, *scopes: str) -> None:
        """Have the token allow nothing but this: `write:issue`, `read:user` and so on."""
        with self.world.lock:
            self.world.scopes[token] = set(scopes)

    def add_organisation(self, login: str, owners: list[str]) -> None:
        with self.world.lock:
            self.world.add_organisation(login, owners)

    def add_repository(self, full_name: str, files: dict[str, str] | None = None, private: bool = False) -> Repository:
        with self.world.lock:
            return self.world.add_repository(full_name, files or {"README.md": f"# {full_name}\n"}, private)

    def rename(self, full_name: str, new_name: str) -> None:
        with self.world.lock:
            self.world.rename(full_name, new_name)

    def collaborate(self, full_name: str, login: str, permission: str) -> None:
        with self.world.lock:
            self.repository(full_name).collaborators[self.world.users[login.lower()].login] = permission

    def add_label(self, full_name: str, name: str, exclusive: bool = False) -> Label:
        with self.world.lock:
            return self.world.add_label(self.repository(full_name), name, exclusive=exclusive)

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
        return self.world.repositories[full_name.lower()]

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
        with self.world.lock:
            return branches.write_file(
                self.world,
                self.repository(full_name),
                self.world.users[login.lower()],
                branch,
                files,
                message,
            )

    def run_ci(self, full_name: str, sha: str, status: str, workflow: str = "test.yml") -> None:
        """A run of Forgejo Actions ended: a commit status, and action_run_* deliveries."""
        with self.world.lock:
            finish(self.world, self.repository(full_name), sha, status, workflow)

    def test_delivery(self, full_name: str, login: str) -> None:
        with self.world.lock:
            repo = self.repository(full_name)
            for hook in self.world.hooks.values():
                body = payloads.test_push(self.world, repo, self.world.users[login.lower()])
                self.post.send(hook, "push", body)

    @property
    def deliveries(self) -> list[Delivery]:
        return list(self.post.deliveries)

    @property
    def dropped(self) -> list[Delivery]:
        return list(self.post.dropped)

    def deliver_again(self, number: int, new_id: bool = True) -> None:
        self.post.again(number, new_id)

    def settle(self, timeout: float = 10) -> None:
        """Wait until everything announced was sent."""
        if not self.post.settle(timeout):
            raise TimeoutError(f"{self.post.pending} deliveries are still under way after {timeout} s")

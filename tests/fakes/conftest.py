"""A furnished fake forge, a receiver for its webhooks, and a working clone, for the tests of the fakes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.cli.demo.forge import FakeForge
from app.cli.demo.forge.sample_data import add_sample_data
from tests.fakes.checked_forge import checked_forge

WIDGETS = "/repos/acme/widgets"
SECRET = "s3cret"


@dataclass
class Receiver:
    url: str = ""
    status: int = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@dataclass
class Clone:
    path: Path

    def git(self, *args: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
        who = ["-c", "user.name=Fleet (bot)", "-c", "user.email=fleet@noreply.example.org"]
        return subprocess.run(
            ["git", "-C", str(self.path), *who, *args], env=env, capture_output=True, text=True, check=False
        )

    def commit(self, name: str, content: str | bytes, message: str) -> str:
        (self.path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD").stdout.strip()


class Town:
    """The forge with its three people, each with a client."""

    def __init__(self, forge: FakeForge, tokens: dict[str, str], root: Path) -> None:
        self.forge, self.tokens, self.root = forge, tokens, root
        self.alice, self.reviewer, self.fleet = (forge.client(tokens[name]) for name in ("alice", "reviewer", "fleet"))

    def stranger(self) -> httpx.Client:
        return self.forge.client(self.forge.add_user("stranger"))

    def clone(self, name: str = "clone", token: str | None = None) -> Clone:
        clone = Clone(self.root / name)
        clone.path.mkdir()
        url = self.forge.clone_url("acme/widgets", token or self.tokens["fleet"])
        done = clone.git("clone", "--quiet", url, ".")
        assert done.returncode == 0, done.stderr
        return clone

    def pushed(self, branch: str, content: str = "print('hello')\n", name: str = "hello.py") -> str:
        """A branch with one more commit, pushed for real."""
        clone = self.clone(branch.replace("/", "-"))
        clone.git("checkout", "--quiet", "-b", branch)
        sha = clone.commit(name, content, f"Write {name}")
        done = clone.git("push", "--quiet", "origin", "HEAD")
        assert done.returncode == 0, done.stderr
        return sha

    def pull(self, branch: str, title: str = "Say hello", body: str = "") -> int:
        order = {"title": title, "body": body, "head": branch, "base": "main"}
        answer = self.fleet.post(f"{WIDGETS}/pulls", json=order)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["number"])

    def sent(self, forget: bool = True) -> list[str]:
        """What was delivered since the last time, as Event-Type/action."""
        self.forge.wait_for_deliveries()
        kinds = [delivery.kind for delivery in self.forge.deliveries]
        if forget:
            self.forge.webhooks.deliveries.clear()
        return kinds


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with checked_forge(tmp_path / "forge") as forge:
        yield Town(forge, add_sample_data(forge), tmp_path)
        assert forge.violations == []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    box = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            box.got.append((dict(self.headers.items()), body))
            self.send_response(box.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    box.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield box
    server.shutdown()
    server.server_close()


@pytest.fixture
def hooked(town: Town, receiver: Receiver) -> Town:
    """The town, with a webhook for everything the product asks for."""
    town.forge.add_hook("acme/widgets", town.tokens["alice"], receiver.url, SECRET)
    return town

"""Stores the agent's state in a directory: its id and token, held tasks, receipts, and the unanswered dequeue."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.config.settings import ConfigError
from app.domain.run import slug
from workers.agent.messages import Json

log = structlog.get_logger()


@dataclass(frozen=True)
class DequeueRequest:
    """A dequeue whose response was not processed yet: repeated with the same key."""

    key: str
    max_tasks: int


class StateDir:
    """The state of one agent. Each file is written under another name and renamed: no reader sees half of it."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, -1
        self.work = path / "work"

    def open(self) -> None:
        """Create and lock the directory. Raises ConfigError."""
        try:
            for folder in (self.path, self.path / "holds", self.path / "outbox"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"Another agent works with {self.path}: stop it, or name another directory with --state."
            raise ConfigError([why]) from None
        except OSError as error:
            why = f"{self.path} cannot store the agent's state ({error.strerror}): name a directory with --state."
            raise ConfigError([why]) from error

    # --- identity

    def agent_id(self, wanted: str | None) -> str:
        """The saved id, else the wanted one, else a new one. Raises ConfigError if saved and wanted differ."""
        known = (self._read(self.path / "agent.json") or {}).get("agent_id")
        if known and wanted not in (None, known):
            raise ConfigError(
                [f"{self.path} belongs to the agent {known!r}, not to {wanted!r}: name another directory with --state."]
            )
        return str(known or wanted or f"{slug(socket.gethostname()) or 'agent'}-{secrets.token_hex(3)}")

    def token(self) -> str | None:
        with contextlib.suppress(OSError):
            return (self.path / "token").read_text().strip() or None
        return None

    def save_token(self, agent_id: str, token: str) -> None:
        """With the first token, the directory belongs to this agent."""
        self._write(self.path / "agent.json", {"agent_id": agent_id})
        _replace(self.path / "token", token.encode())

    # --- the unanswered dequeue

    def request(self) -> DequeueRequest | None:
        saved = self._read(self.path / "asked.json")
        return DequeueRequest(saved["key"], saved["max_tasks"]) if saved else None

    def save_request(self, request: DequeueRequest | None) -> None:
        if request is None:
            (self.path / "asked.json").unlink(missing_ok=True)
        else:
            self._write(self.path / "asked.json", vars(request))

    # --- held tasks and their receipts

    def tasks(self) -> list[Json]:
        found = [self._read(path) for path in sorted((self.path / "holds").glob("*.json"))]
        return [saved for saved in found if saved]

    def save_task(self, worktree: str, lease: int, held: Mapping[str, object]) -> None:
        self._write(self.path / "holds" / f"{worktree}.{lease}.json", held)

    def delete_task(self, worktree: str, lease: int) -> None:
        (self.path / "holds" / f"{worktree}.{lease}.json").unlink(missing_ok=True)

    def receipt(self, name: str) -> Json | None:
        return self._read(self.path / "outbox" / f"{name}.json")

    def save_receipt(self, name: str, receipt: Mapping[str, object] | None) -> None:
        path = self.path / "outbox" / f"{name}.json"
        if receipt is None:
            path.unlink(missing_ok=True)
        else:
            self._write(path, receipt)

    def _read(self, path: Path) -> Json | None:
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as why:
            log.warning("a state file cannot be read", path=str(path), why=str(why))
            return None
        return found if isinstance(found, dict) else None

    @staticmethod
    def _write(path: Path, content: Mapping[str, object]) -> None:
        _replace(path, json.dumps(content).encode())


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

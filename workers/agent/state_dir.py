"""The state folder: who we are, our token, what we hold, what we asked and were not answered; ours alone."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

import structlog

from app.config.settings import ConfigError
from app.domain.run import slug

Json = dict[str, Any]
log = structlog.get_logger()


class Folder:
    """One agent's memory. Each file is written under another name and renamed: nobody reads a half."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, -1
        self.work = path / "work"

    def open(self) -> None:
        """Make the folder and take it for ourselves. Raises Wrong."""
        try:
            for folder in (self.path, self.path / "holds", self.path / "outbox"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"Another agent works with {self.path}: stop it, or name another folder by --state."
            raise ConfigError([why]) from None
        except OSError as error:
            why = f"{self.path} cannot hold the agent's state ({error.strerror}): name a folder by --state."
            raise ConfigError([why]) from error

    # --- who we are

    def agent_id(self, wanted: str | None) -> str:
        """The id that was given once; else the wanted one, else one of our own. Raises Wrong when they differ."""
        known = (self._read(self.path / "agent.json") or {}).get("agent_id")
        if known and wanted not in (None, known):
            raise ConfigError(
                [f"{self.path} belongs to the agent {known!r}, not to {wanted!r}: name another by --state."]
            )
        return str(known or wanted or f"{slug(socket.gethostname()) or 'agent'}-{secrets.token_hex(3)}")

    def token(self) -> str | None:
        with contextlib.suppress(OSError):
            return (self.path / "token").read_text().strip() or None
        return None

    def keep_token(self, agent_id: str, token: str) -> None:
        """From the first token on the folder is this agent's."""
        self._write(self.path / "agent.json", {"agent_id": agent_id})
        _replace(self.path / "token", token.encode())

    # --- what we asked: a lost answer is asked for again by the same key

    def question(self) -> Json | None:
        return self._read(self.path / "asked.json")

    def keep_question(self, question: Json | None) -> None:
        if question is None:
            (self.path / "asked.json").unlink(missing_ok=True)
        else:
            self._write(self.path / "asked.json", question)

    # --- what we hold, and the letters about it

    def holds(self) -> list[Json]:
        found = [self._read(path) for path in sorted((self.path / "holds").glob("*.json"))]
        return [kept for kept in found if kept]

    def keep_hold(self, task: str, lease: int, kept: Json) -> None:
        self._write(self.path / "holds" / f"{task}.{lease}.json", kept)

    def forget_hold(self, task: str, lease: int) -> None:
        (self.path / "holds" / f"{task}.{lease}.json").unlink(missing_ok=True)

    def letter(self, name: str) -> Json | None:
        return self._read(self.path / "outbox" / f"{name}.json")

    def keep_letter(self, name: str, letter: Json | None) -> None:
        path = self.path / "outbox" / f"{name}.json"
        if letter is None:
            path.unlink(missing_ok=True)
        else:
            self._write(path, letter)

    def _read(self, path: Path) -> Json | None:
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as why:
            log.warning("a file of the state cannot be read", path=str(path), why=str(why))
            return None
        return found if isinstance(found, dict) else None

    @staticmethod
    def _write(path: Path, content: Json) -> None:
        _replace(path, json.dumps(content).encode())


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

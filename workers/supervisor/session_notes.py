"""Reads the newest line of a kind from the session file that a CLI keeps."""

from __future__ import annotations

import json
import re
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import file_size, read_tail, replace_file
from workers.supervisor.programs import fill_placeholders

if TYPE_CHECKING:
    from workers.supervisor.constants import Json
    from workers.supervisor.run import Run


class SessionNotes:
    """The newest such line since the CLI was started.

    The CLI's template says how its output names the session, where the file is, and what marks the line. Every error
    is ignored: a run does not depend on it.
    """

    INTERVAL_SECS = 1.0
    LINE_BYTES = 8192
    IGNORED = (OSError, ValueError, TypeError, LookupError, AttributeError, re.error)

    def __init__(self, run: Run, agent: Json, env: dict[str, str], since: float) -> None:
        self._run, self._template, self._env = run, agent.get("session_file"), env
        self._since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since))
        self._path: str | None = None
        self._size, self._next_read = 0, 0.0
        self._line: str | None = None

    def update(self) -> None:
        """Write a new line to the run's folder for polls, at most once a second."""
        if self._template and time.monotonic() >= self._next_read:
            before = self._line
            if self.newest() != before:
                try:
                    replace_file(self._run.file("noted"), (self._line or "").encode())
                except OSError:
                    pass
            self._next_read = time.monotonic() + self.INTERVAL_SECS

    def newest(self) -> str | None:
        """Read the file if it has grown, and return the line."""
        try:
            self._path = self._path or (self._find_file() if self._template else None)
            if self._path and file_size(self._path) != self._size:
                self._size = file_size(self._path)
                self._line = self._find_line(read_tail(self._path)) or self._line
        except self.IGNORED:
            pass
        return self._line

    def _find_file(self) -> str | None:
        template: Json = self._template or {}
        with open("stdout.log", "rb") as file:
            session = re.search(template["named"].encode(), file.read(65536))
        if not session:
            return None
        import glob

        values = {"{%s}" % name: value for name, value in self._env.items()}
        path = fill_placeholders(template["path"], {**values, "{session}": session.group(1).decode("ascii")})
        return next(iter(glob.glob(path)), None)

    def _find_line(self, tail: bytes) -> str | None:
        template: Json = self._template or {}
        whole = tail[: tail.rfind(b"\n") + 1]  # the last line may be incomplete
        for line in reversed(whole.decode("utf-8", "replace").splitlines()):
            if template["line"] in line and len(line) < self.LINE_BYTES:
                return line if json.loads(line).get("timestamp", "") >= self._since else None
        return None

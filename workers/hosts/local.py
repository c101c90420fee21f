"""Runs the supervisor on this machine: a process that serves requests over pipes, as over SSH elsewhere."""

import json
import os
import py_compile
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from workers.errors import Unreachable
from workers.protocol import MOST_BYTES, Answer, frame
from workers.ssh.deadlines import Deadlines
from workers.supervisor import bundle
from workers.supervisor_messages import Body, SupervisorAnswer

ANSWER_SECS = 60.0
IDLE_PROCESSES, IDLE_SECS = 2, 60.0  # kept for the next request: one for polls, one for starts
PIECE = 1 << 20  # bytes
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SHELL")  # no secret of ours is among them
Key = tuple[str, tuple[tuple[str, str], ...]]  # path of the supervisor, environment


class LocalSupervisors:
    """The supervisors of this machine that serve this process; idle ones are kept for the next request."""

    def __init__(self, deadlines: Deadlines, secs: float = ANSWER_SECS) -> None:
        self._deadlines, self._secs, self._lock = deadlines, secs, threading.Lock()
        self._idle: list[tuple[Key, SupervisorProcess]] = []

    def request(self, verb: str, body: Body) -> SupervisorAnswer:
        """Send one request to a supervisor; `body["home"]` is our folder. Returns its answer.

        A request that may have arrived is sent again only if that does no harm. Raises Unreachable.
        """
        request = frame(verb, json.dumps(body).encode())
        key = str(install(str(body["home"]))), _environment()
        while process := self._take_idle(key):
            try:
                return self._finish(key, process, process.request(request, is_repeatable=verb != "start"))
            except ProcessEnded:
                process.end()
        process, answer = SupervisorProcess(*key, self._deadlines, self._secs), Answer(MOST_BYTES)
        with suppress(ProcessEnded):
            answer = process.request(request)
        return self._finish(key, process, answer)

    def close(self) -> None:
        """End all idle supervisors."""
        for _, process in self._take(lambda _key, _process: True):
            process.end()

    def _take_idle(self, key: Key) -> "SupervisorProcess | None":
        """An idle supervisor with this key. Ends those that were idle for too long."""
        now = time.monotonic()
        for _, process in self._take(lambda _, one: now - one.used_at > IDLE_SECS):
            process.end()
        return next((process for _, process in self._take(lambda theirs, _: theirs == key, 1)), None)

    def _take(
        self, matches: "Callable[[Key, SupervisorProcess], bool]", most: int = IDLE_PROCESSES
    ) -> "list[tuple[Key, SupervisorProcess]]":
        with self._lock:
            taken = [one for one in self._idle if matches(*one)][:most]
            for one in taken:
                self._idle.remove(one)
        return taken

    def _finish(self, key: Key, process: "SupervisorProcess", answer: Answer) -> SupervisorAnswer:
        """Keep the supervisor if its answer is whole; otherwise end it and raise Unreachable with its last words."""
        if not answer.is_whole:
            raise Unreachable(bundle.annotate(process.end()) or "it ended without a word, or did not answer in time")
        with self._lock:
            self._idle.append((key, process))
            surplus = self._idle.pop(0)[1] if len(self._idle) > IDLE_PROCESSES else None
        if surplus:
            surplus.end()
        return answer.as_json()


class ProcessEnded(Exception):
    """The supervisor had ended before the request: nothing was done, or nothing that is harmful to repeat."""


class SupervisorProcess:
    """A supervisor that serves requests. It has a session of its own: Ctrl-C in our terminal does not reach it."""

    def __init__(
        self, supervisor: str, environment: tuple[tuple[str, str], ...], deadlines: Deadlines, secs: float
    ) -> None:
        self._deadlines, self._secs, self.used_at = deadlines, secs, time.monotonic()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._stderr, env=dict(environment), start_new_session=True, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise Unreachable(f"it cannot be started: {error}") from error

    def request(self, request: bytes, is_repeatable: bool = False) -> Answer:
        """The answer, as far as it came in time. Raises Unreachable.

        Raises ProcessEnded if the request did not arrive whole, and if the process ended without a word and the request
        `is_repeatable`.
        """
        answer = Answer(MOST_BYTES)
        with self._deadlines.within(self._secs, self._process.kill) as deadline:
            try:
                self._exchange(request, answer)
            except OSError as why:
                if not deadline.is_late:
                    raise ProcessEnded from why
            except Unreachable:
                self.end()
                raise
        if is_repeatable and not deadline.is_late and not answer.received:
            raise ProcessEnded
        self.used_at = time.monotonic()
        return answer

    def _exchange(self, request: bytes, answer: Answer) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        rest = memoryview(request)
        while rest:
            rest = rest[stdin.write(rest) or 0 :]
        while not answer.is_whole and (data := os.read(stdout.fileno(), PIECE)):
            answer.feed(data)

    def end(self) -> str:
        """Kill the process; returns the end of its stderr."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 500))
        words = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        return words


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple((name, os.environ[name]) for name in PASSED_ON if name in os.environ)


@cache
def install(home: str) -> Path:
    """Install our supervisor below `home` under the hash of its code; returns the path of its compiled form.

    The hash in the name keeps a running one unchanged. Compiling it would take a sixth of each start.
    """
    path = Path(home) / "bin" / f"{bundle.sha256()}.py"
    compiled = path.with_suffix(f".{sys.implementation.cache_tag}.pyc")
    if not compiled.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        new.write_bytes(bundle.source())
        new.replace(path)
        py_compile.compile(str(path), str(compiled), doraise=True)
    return compiled

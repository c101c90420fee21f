"""The supervisor on this machine: a process that stays and is asked over pipes, as it is over SSH elsewhere."""

import json
import os
import py_compile
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from workers.errors import Unreachable
from workers.protocol import Answer, Json, frame
from workers.ssh import deadlines
from workers.supervisor import bundle

SECONDS, MOST = 60.0, 64 << 20  # of an answer: time and bytes
KEPT, KEPT_SECS = 2, 60.0  # that wait for the next request: a look and a start; a supervisor itself waits for longer
PIECE = 1 << 20
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SHELL")  # no secret of ours goes along


def ask(verb: str, request: Mapping[str, Any]) -> Json:
    """What the supervisor answers to a verb. What may have been heard is not said twice, unless that does no harm.
    Raises Unreachable."""
    said = frame(verb, json.dumps(request).encode())
    key = str(copied(request["home"])), tuple((name, os.environ[name]) for name in PASSED_ON if name in os.environ)
    while session := _waiting(key):
        try:
            return _told(key, session, session.ask(said, harmless=verb != "start"))
        except Gone:
            session.end()
    session, answer = Session(*key), Answer(MOST)
    with suppress(Gone):
        answer = session.ask(said)
    return _told(key, session, answer)


class Gone(Exception):
    """It had ended while nobody looked: nothing was done, or nothing that it would do harm to do again."""


class Session:
    """A supervisor that waits for what it is asked, in a session of its own: what ends us at a keyboard is not its."""

    def __init__(self, compiled: str, environment: tuple[tuple[str, str], ...]) -> None:
        self._stderr, self.used_at = tempfile.TemporaryFile(), time.monotonic()  # noqa: SIM115 - it ends with us
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", compiled, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._stderr, env=dict(environment), start_new_session=True, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise Unreachable(f"it cannot be started: {error}") from error

    def ask(self, said: bytes, harmless: bool = False) -> Answer:
        """Its answer, as far as it came within the time. Raises Unreachable, and Gone where it surely did not hear all
        of it, or ended without a word and to say it again would be `harmless`."""
        answer, stdin, stdout = Answer(MOST), self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        with deadlines.watch.within(SECONDS, self._process.kill) as step:
            try:
                rest = memoryview(said)
                while rest:
                    rest = rest[stdin.write(rest) or 0 :]
                while not answer.is_whole and (data := os.read(stdout.fileno(), PIECE)):
                    answer.feed(data)
            except OSError as why:
                if not step.is_late:
                    raise Gone from why
            except Unreachable:
                self.end()
                raise
        if harmless and not step.is_late and not answer.said:
            raise Gone
        self.used_at = time.monotonic()
        return answer

    def end(self) -> str:
        """Its last words."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 500))
        words = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        return words


Key = tuple[str, tuple[tuple[str, str], ...]]
_idle: list[tuple[Key, Session]] = []
_lock = threading.Lock()


def forget() -> None:
    """End all that wait: for the end of a test."""
    for _, session in _taken(lambda _key, _session: True):
        session.end()


def _waiting(key: Key) -> Session | None:
    """One that waits for us; those that nobody has used for long are ended."""
    now = time.monotonic()
    for _, session in _taken(lambda _, one: now - one.used_at > KEPT_SECS):
        session.end()
    return next((session for _, session in _taken(lambda theirs, _: theirs == key, 1)), None)


def _taken(which: Callable[[Key, Session], bool], most: int = KEPT) -> list[tuple[Key, Session]]:
    with _lock:
        out = [one for one in _idle if which(*one)][:most]
        for one in out:
            _idle.remove(one)
    return out


def _told(key: Key, session: Session, answer: Answer) -> Json:
    if not answer.is_whole:
        raise Unreachable(bundle.annotate(session.end()) or "it ended without a word, or did not answer in time")
    with _lock:
        _idle.append((key, session))
        over = _idle.pop(0)[1] if len(_idle) > KEPT else None
    if over:
        over.end()
    return answer.told()


@cache
def copied(home: str) -> Path:
    """The supervisor under its content's hash, so that one that runs is never changed under its feet; compiled, since
    compiling it would be a sixth of every start."""
    path = Path(home) / "bin" / f"{bundle.sha256()}.py"
    compiled = path.with_suffix(f".{sys.implementation.cache_tag}.pyc")
    if not compiled.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        new.write_bytes(bundle.source())
        new.replace(path)
        py_compile.compile(str(path), str(compiled), doraise=True)
    return compiled


def _after_fork() -> None:
    """The child's own: it says nothing over its parent's pipes."""
    global _lock  # noqa: PLW0603 - it may have been held at the fork
    _lock = threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)

"""SSH client: runs commands over one connection, several at once, each answer limited in size and time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import paramiko

from app.domain.host import Address
from workers.errors import NotSent, Unreachable
from workers.protocol import Answer
from workers.ssh.connection import NETWORK_ERRORS, Timeouts, connect, describe_failure
from workers.ssh.deadlines import Deadlines
from workers.ssh.session_limit import SessionLimit

SESSIONS = 8  # at once on one connection; sshd's MaxSessions is 10
IDLE_SESSIONS = 2  # kept for the next request: one for polls, one for starts
PIECE, MOST_STDERR = 1 << 20, 1 << 16  # bytes; paramiko copies the rest of its buffer after each piece
MARGIN_SECS = 2.0  # a late session is given up; if even that takes longer than this, the connection is cut
WAKE_SECS = 1.0  # how often paramiko's thread wakes; its own 0.1 s costs 1 % of a core for 100 idle hosts


class Session:
    """A channel with a command at its other end."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self.command: str | None = None  # a command that serves one request after the other
        self.is_idle = False  # it has answered every request
        self.used_at = time.monotonic()

    @property
    def is_open(self) -> bool:
        """False once we know that the other end has closed."""
        return not (self.channel.closed or self.channel.eof_received)


class SshClient:
    """One SSH connection to a host. Several threads may use it at once."""

    def __init__(self, address: Address, deadlines: Deadlines, timeouts: Timeouts | None = None) -> None:
        """Connect. Raises Unreachable or Untrusted."""
        self.timeouts = timeouts or Timeouts()
        self._deadlines, self._limit, self._idle = deadlines, SessionLimit(SESSIONS), list[Session]()
        self._connection = connect(address, self.timeouts, deadlines)
        self._transport = self._connection.transport
        for sock in self._connection.sockets:
            sock.settimeout(WAKE_SECS)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._transport.is_active()

    def close(self) -> None:
        self._connection.close()

    def run(
        self, command: str, stdin: bytes = b"", most: int = 1 << 20, secs: float | None = None
    ) -> tuple[bytes, bytes]:
        """Run a command to its end; returns its stdout, at most `most` bytes, and the end of its stderr.

        All within `secs`, or the timeout for answers. Raises Unreachable.
        """
        secs = self.timeouts.answer if secs is None else secs
        until = time.monotonic() + secs
        with (
            self._session(until) as session,
            self._deadlines.within(secs + MARGIN_SECS, self._connection.cut) as deadline,
        ):
            try:
                session.channel.exec_command(command)
                self._write_stdin(session.channel, stdin)
                return _read_all(session.channel, most, until)
            except NETWORK_ERRORS as why:
                raise Unreachable(describe_failure("its answer", why, secs, deadline.is_late)) from why

    def request(
        self, command: str, request: bytes, answer: Answer, secs: float | None = None, is_repeatable: bool = False
    ) -> bytes:
        """Send a request to a command that serves several, and read until `answer` is whole.

        Uses an idle session with that command, or starts one. Returns the command's stderr if it ended instead.
        Raises Unreachable. Raises NotSent if the request surely did not arrive, and if an idle session ended without a
        word and the request `is_repeatable`.
        """
        secs = self.timeouts.answer if secs is None else secs
        until = time.monotonic() + secs
        with (
            self._session(until, command) as session,
            self._deadlines.within(secs + MARGIN_SECS, self._connection.cut) as deadline,
        ):
            try:
                if session.command is None:
                    session.channel.exec_command(command)
                    session.command = command
                was_idle = self._send(session, request)
                stderr = _read_answer(session, answer, until)
            except NETWORK_ERRORS as why:
                raise Unreachable(describe_failure("its answer", why, secs, deadline.is_late)) from why
        if was_idle and is_repeatable and not answer.is_whole and not answer.received:
            raise NotSent("the session had ended")
        return stderr

    def close_idle_sessions(self, secs: float) -> None:
        """Close the sessions that were not used for `secs`."""
        for session in self._take_idle(lambda one: time.monotonic() - one.used_at > secs):
            self._close(session)

    def _write_stdin(self, channel: paramiko.Channel, stdin: bytes) -> None:
        """A command that ended without reading all of it has printed why: that is still to be read."""
        try:
            channel.sendall(stdin)
            channel.shutdown_write()
        except OSError as why:
            if isinstance(why, TimeoutError) or not self.is_open:
                raise

    def _send(self, session: Session, request: bytes) -> bool:
        """True if the session was idle. A supervisor that did not receive a whole request does nothing."""
        was_idle, session.is_idle = session.is_idle, False
        try:
            session.channel.sendall(request)
        except (OSError, EOFError) as why:  # EOFError if the connection ends meanwhile
            if isinstance(why, TimeoutError):
                raise
            if was_idle:
                raise NotSent("the session had ended") from why
            if not self.is_open:
                raise
        return was_idle

    @contextmanager
    def _session(self, until: float, command: str | None = None) -> Iterator[Session]:
        """An idle session with that command, else a new one. If the host refuses, try again when one of ours ends."""
        for _ in self._limit.attempts(until):
            with self._limit.slot(until):
                session = self._take_idle_with(command) or self._open()
                if session is None:
                    continue
                try:
                    yield session
                finally:
                    self._keep_or_close(session)
                    self._limit.session_ended()
                return
        raise Unreachable("it opens no session for us: has it a MaxSessions of 0?")

    def _keep_or_close(self, session: Session) -> None:
        if session.is_idle and len(self._idle) < IDLE_SESSIONS:
            self._idle.append(session)
        else:
            self._close(session)

    def _take_idle_with(self, command: str | None) -> Session | None:
        while command and self._idle:
            with suppress(IndexError):  # another thread took it
                session = self._idle.pop()
                if session.is_open and session.command == command:
                    return session
                self._close(session)
        return None

    def _take_idle(self, matches: Callable[[Session], bool]) -> list[Session]:
        taken = []
        for session in [one for one in list(self._idle) if matches(one)]:
            with suppress(ValueError):  # another thread took it
                self._idle.remove(session)
                taken.append(session)
        return taken

    def _open(self) -> Session | None:
        """A new session; None if the host refuses, perhaps because of our idle ones: these are closed then."""
        channel = self._open_channel()
        if channel is None:
            for session in self._take_idle(lambda _: True):
                self._close(session)
        return Session(channel) if channel else None

    def _open_channel(self) -> paramiko.Channel | None:
        """None if the host refuses. Raises NotSent if the connection is dead."""
        secs = self.timeouts.channel
        try:
            if self._transport is None:
                raise EOFError("the connection is closed")
            with self._deadlines.within(secs + MARGIN_SECS, self._connection.cut):
                return self._transport.open_session(timeout=secs)
        except NETWORK_ERRORS as why:
            # paramiko keeps one error for all threads: of two that are refused at once, each may get half of it.
            if self.is_open and (isinstance(why, paramiko.ChannelException) or str(why) == "Unable to open channel."):
                return None
            self._connection.cut()
            raise NotSent(describe_failure("a session", why, secs, False)) from why

    def _close(self, session: Session) -> None:
        with suppress(*NETWORK_ERRORS), self._deadlines.within(self.timeouts.channel, self._connection.cut):
            session.channel.close()


def _read_answer(session: Session, answer: Answer, until: float) -> bytes:
    """Read until the answer is whole; returns the stderr of a command that ended first."""
    channel = session.channel
    while not answer.is_whole:
        channel.settimeout(max(0.01, until - time.monotonic()))
        data = channel.recv(PIECE)
        if not data:
            return _read_stderr(channel)
        answer.feed(data)
    session.is_idle, session.used_at = True, time.monotonic()
    return b""


def _read_all(channel: paramiko.Channel, most: int, until: float) -> tuple[bytes, bytes]:
    stdout = bytearray()
    while True:
        channel.settimeout(max(0.01, until - time.monotonic()))
        data = channel.recv(PIECE)
        if not data:
            return bytes(stdout), _read_stderr(channel)
        stdout += data
        if len(stdout) > most:
            raise Unreachable(f"its answer is longer than {most} bytes")


def _read_stderr(channel: paramiko.Channel) -> bytes:
    return bytes(channel.recv_stderr(MOST_STDERR)) if channel.recv_stderr_ready() else b""

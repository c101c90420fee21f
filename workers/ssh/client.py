"""A line to a host: one SSH connection that several threads use, each answer bounded in size and time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import paramiko

from workers.errors import Unreachable
from workers.protocol import Answer
from workers.ssh import deadlines
from workers.ssh.connection import AWAY, Address, Limits, connect, in_words
from workers.ssh.session_limit import Room

SESSIONS = 8  # at once on one connection; sshd's MaxSessions is 10
KEPT = 2  # of these wait for the next request: a look and a start
PIECE, MOST_STDERR = 1 << 20, 1 << 16  # paramiko moves what is left of its buffer after each piece
MARGIN_SECS = 2.0  # a session that is late is given up; a connection on which even that takes long is cut
WAKE_SECS = 1.0  # how often paramiko's thread looks up; its own 0.1 s costs 1 % of a core for 100 idle hosts


class Session:
    """A channel with a command at its other end."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self.command: str | None = None  # one that stays, and can be asked again
        self.is_fit = False  # it has answered all that it was asked
        self.used_at = time.monotonic()

    @property
    def is_there(self) -> bool:
        """Whether its other end, as far as we have heard, still listens."""
        return not (self.channel.closed or self.channel.eof_received)


class Line:
    """An open connection. Several threads may use it at once."""

    def __init__(self, address: Address, limits: Limits | None = None) -> None:
        """Connect. Raises Unreachable or Distrusted."""
        self.limits = limits = limits or Limits()
        self._room, self._idle = Room(SESSIONS), list[Session]()
        self._opened = connect(address, limits)
        self._transport = self._opened.transport
        for sock in self._opened.sockets:
            sock.settimeout(WAKE_SECS)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._transport.is_active()

    def close(self) -> None:
        self._opened.close()

    def run(
        self, command: str, said: bytes = b"", most: int = 1 << 20, secs: float | None = None
    ) -> tuple[bytes, bytes]:
        """What a command prints, at most `most` bytes, with `said` on its standard input; and its last words on stderr.
        Everything within `secs`, or the limit for answers. Raises Unreachable."""
        secs = self.limits.answer if secs is None else secs
        until = time.monotonic() + secs
        with self._session(until) as session, deadlines.watch.within(secs + MARGIN_SECS, self._opened.cut) as step:
            channel = session.channel
            try:
                channel.exec_command(command)
                self._say(channel, said)
                return self._heard(channel, most, until)
            except AWAY as why:
                raise Unreachable(in_words("its answer", why, secs, step.is_late)) from why

    def ask(
        self, command: str, said: bytes, answer: Answer, secs: float | None = None, harmless: bool = False
    ) -> bytes:
        """Say something to a command that stays on the line, until its answer is whole; it is started where none waits
        for us. What it said on stderr, where it ended instead. Raises Unreachable; NotAsked where it surely did not
        hear us, and where one that had waited ended without a word and to say it again would be `harmless`."""
        secs = self.limits.answer if secs is None else secs
        until = time.monotonic() + secs
        with (
            self._session(until, command) as session,
            deadlines.watch.within(secs + MARGIN_SECS, self._opened.cut) as step,
        ):
            try:
                if session.command is None:
                    session.channel.exec_command(command)
                    session.command = command
                had_waited = self._tell(session, said)
                trouble = self._listen(session, answer, until)
            except AWAY as why:
                raise Unreachable(in_words("its answer", why, secs, step.is_late)) from why
        if had_waited and harmless and not answer.is_whole and not answer.said:
            raise NotAsked("the session had ended")
        return trouble

    def hang_up(self, secs: float) -> None:
        """End the sessions that nobody has used for so long."""
        for session in self._taken_out(lambda one: time.monotonic() - one.used_at > secs):
            self._end(session)

    def _say(self, channel: paramiko.Channel, said: bytes) -> None:
        """A command that ended without reading all of it has said why, and that is still to be heard."""
        try:
            channel.sendall(said)
            channel.shutdown_write()
        except OSError as why:
            if isinstance(why, TimeoutError) or not self.is_open:
                raise

    def _tell(self, session: Session, said: bytes) -> bool:
        """Whether it had waited for us. Whoever has not heard all of it does nothing of it."""
        had_waited, session.is_fit = session.is_fit, False
        try:
            session.channel.sendall(said)
        except (OSError, EOFError) as why:  # the latter where the connection dies under it
            if isinstance(why, TimeoutError):
                raise
            if had_waited:
                raise NotAsked("the session had ended") from why
            if not self.is_open:
                raise
        return had_waited

    def _listen(self, session: Session, answer: Answer, until: float) -> bytes:
        channel = session.channel
        while not answer.is_whole:
            channel.settimeout(max(0.01, until - time.monotonic()))
            data = channel.recv(PIECE)
            if not data:
                return channel.recv_stderr(MOST_STDERR) if channel.recv_stderr_ready() else b""
            answer.feed(data)
        session.is_fit, session.used_at = True, time.monotonic()
        return b""

    @contextmanager
    def _session(self, until: float, command: str | None = None) -> Iterator[Session]:
        """One that waits with that command; else a new one, and when the host has no room for another, one after a
        session of ours has ended."""
        for _ in self._room.tries(until):
            with self._room.taken(until):
                session = self._waiting(command) or self._new()
                if session is None:
                    continue
                try:
                    yield session
                finally:
                    if session.is_fit and len(self._idle) < KEPT:
                        self._idle.append(session)
                    else:
                        self._end(session)
                    self._room.ended += 1
                return
        raise Unreachable("it opens no session for us: has it a MaxSessions of 0?")

    def _waiting(self, command: str | None) -> Session | None:
        while command and self._idle:
            with suppress(IndexError):  # another thread was quicker
                session = self._idle.pop()
                if session.is_there and session.command == command:
                    return session
                self._end(session)
        return None

    def _taken_out(self, which: Callable[[Session], bool]) -> list[Session]:
        out = []
        for session in [one for one in list(self._idle) if which(one)]:
            with suppress(ValueError):  # another thread was quicker
                self._idle.remove(session)
                out.append(session)
        return out

    def _new(self) -> Session | None:
        """None where the host refuses."""
        channel = self._channel()
        if channel is None:  # perhaps for those of ours that only wait
            for session in self._taken_out(lambda _: True):
                self._end(session)
        return Session(channel) if channel else None

    def _end(self, session: Session) -> None:
        with suppress(*AWAY), deadlines.watch.within(self.limits.channel, self._opened.cut):
            session.channel.close()

    def _channel(self) -> paramiko.Channel | None:
        """None where the host refuses."""
        try:
            if self._transport is None:
                raise EOFError("the connection is closed")
            with deadlines.watch.within(self.limits.channel + MARGIN_SECS, self._opened.cut):
                return self._transport.open_session(timeout=self.limits.channel)
        except AWAY as why:
            # paramiko keeps one error for all threads: two that are refused at once may each get half of it.
            if self.is_open and (isinstance(why, paramiko.ChannelException) or str(why) == "Unable to open channel."):
                return None
            self._opened.cut()
            raise NotAsked(in_words("a session", why, self.limits.channel, False)) from why

    def _heard(self, channel: paramiko.Channel, most: int, until: float) -> tuple[bytes, bytes]:
        out = bytearray()
        while True:
            channel.settimeout(max(0.01, until - time.monotonic()))
            data = channel.recv(PIECE)
            if not data:
                break
            out += data
            if len(out) > most:
                raise Unreachable(f"its answer is longer than {most} bytes")
        return bytes(out), channel.recv_stderr(MOST_STDERR) if channel.recv_stderr_ready() else b""


class NotAsked(Unreachable):
    """The connection was dead before anything was said: whoever makes another may ask again."""

    never_asked = True

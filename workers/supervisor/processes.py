"""Starts a program in a session of its own, held before its first instruction."""

from __future__ import annotations

import fcntl
import os
import signal

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.isolation import isolate
from workers.supervisor.programs import find_program

if TYPE_CHECKING:
    from typing import NoReturn

# Signals that Python or the supervisor handles in its own way, and a program expects at their default.
RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP)


class Child:
    """One program in a session of its own, so that it and what it starts can be ended together.

    It waits before its first instruction until `start`, and exits if this process dies before that. fork and exec are
    called directly: importing subprocess takes longer than all of this. `files` become its descriptors from 0 on.
    """

    def __init__(
        self, argv: list[str], env: dict[str, str], cwd: str, files: list[int], isolated: bool = False
    ) -> None:
        self.argv, self.env = argv, env
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.isolation_failed = False
        gate, self._gate = os.pipe()
        self._errors, errors = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)  # else the child itself would hold the gate open after this process died
            _exec_program(argv, env, cwd, files, gate, errors, isolated)
        for fd in {gate, errors, *files}:
            os.close(fd)

    def start(self) -> None:
        """Let the program run. Raises OSError if it cannot be executed."""
        with open(self._gate, "wb"), open(self._errors, "rb") as errors:
            os.write(self._gate, b"!")
            answer = errors.read()  # empty if exec has closed the other end
        number = answer.lstrip(b"!")
        self.isolation_failed = number != answer
        if number:
            os.waitpid(self.pid, 0)
            self.exit_code = 127
            raise OSError(int(number), os.strerror(int(number)), self.argv[0])

    def has_ended(self) -> bool:
        if self.exit_code is None and self.signal is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid and os.WIFSIGNALED(status):
                self.signal = os.WTERMSIG(status)
            elif pid:
                self.exit_code = os.WEXITSTATUS(status)
        return self.exit_code is not None or self.signal is not None

    def describe_end(self) -> str:
        return f"was ended by signal {self.signal}" if self.signal else f"ended with code {self.exit_code}"


def _exec_program(
    argv: list[str], env: dict[str, str], cwd: str, files: list[int], gate: int, errors: int, isolated: bool
) -> NoReturn:
    """Become the program once the gate opens. Write `!` to errors if isolation failed, errno if exec failed."""
    try:
        if isolated and not isolate():
            os.write(errors, b"!")
        os.setsid()
        reset_signals()
        os.chdir(cwd)
        free = len(files)  # descriptors below are about to be replaced
        gate, errors, *files = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in (gate, errors, *files))
        for number, fd in enumerate(files):
            os.dup2(fd, number)
        if os.read(gate, 1):
            os.execve(find_program(argv[0], env["PATH"]), argv, env)
    except OSError as error:
        os.write(errors, str(error.errno).encode())
    finally:
        os._exit(127)


def reset_signals() -> None:
    for number in RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def reap_orphans(child: Child) -> None:
    """Collect the exit of each inherited process. The child's own exit is left to `Child.has_ended`."""
    while hasattr(os, "waitid"):
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if dead is None or dead.si_pid == child.pid:
            return
        os.waitpid(dead.si_pid, os.WNOHANG)

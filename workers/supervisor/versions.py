"""Asks programs for their versions, and picks the flags that fit one."""

from __future__ import annotations

import os
import re
import signal
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.isolation import isolate
from workers.supervisor.procfs import send_signal, session_members
from workers.supervisor.programs import base_environment, find_program

if TYPE_CHECKING:
    from subprocess import Popen

    from workers.supervisor.constants import Json

VERSION_SECS = 5


def ask_versions(commands: Json, isolated: bool = False) -> dict[str, str | None]:
    """Run commands at the same time, for at most 5 s. Return the first line of each; None for one that failed."""
    until = time.monotonic() + VERSION_SECS
    running = {name: _start_command(argv, isolated) for name, argv in commands.items()}
    return {name: _first_line(child, until) if child else None for name, child in running.items()}


def _start_command(argv: list[str], isolated: bool) -> Popen[bytes] | None:
    from subprocess import DEVNULL, PIPE, Popen

    how = {"stdin": DEVNULL, "stdout": PIPE, "stderr": DEVNULL, "preexec_fn": isolate if isolated else None}
    try:
        return Popen(argv, env=base_environment(), start_new_session=True, **how)  # type: ignore[call-overload,no-any-return]
    except (OSError, TypeError, ValueError):
        return None


def _first_line(child: Popen[bytes], until: float) -> str | None:
    from subprocess import TimeoutExpired

    try:
        output = child.communicate(timeout=max(0.1, until - time.monotonic()))[0].decode("utf-8", "replace")
        return output.partition("\n")[0].strip() if child.returncode == 0 else None
    except TimeoutExpired:
        send_signal(signal.SIGKILL, session_members(child.pid))
        child.wait()
        return None


def path_with(name: str, path: str) -> str:
    """Return a PATH that leads to a program: the given one, else with the folders of the user's login shell."""
    try:
        find_program(name, path)
        return path
    except FileNotFoundError:
        shell = os.environ.get("SHELL") or "/bin/sh"
        login = ask_versions({"": [shell, "-lic", 'printf %s "$PATH"']}, isolated=True)[""]
        return path + os.pathsep + login if login else path


def argv_with_flags(agent: Json, isolated: bool) -> list[str]:
    """Return the agent's argv with the flags of its installed version, which is asked only if a flag depends on it."""
    rules: list[Json] = agent.get("flags") or []
    version = None
    if agent.get("version") and any(rule.get("since") or rule.get("until") for rule in rules):
        version = ask_versions({"": agent["version"]}, isolated)[""]
    return flags_for(agent["argv"], rules, version)


def flags_for(argv: list[str], rules: list[Json], version: str | None) -> list[str]:
    """Return the argv for a version. The flags replace `{flags}`, or follow at the end.

    An unknown version gets the flags without `since` and `until`.
    """
    flags = [word for rule in rules if _fits(rule, parse_version(version or "")) for word in rule.get("argv") or []]
    if "{flags}" not in argv:
        return argv + flags
    at = argv.index("{flags}")
    return argv[:at] + flags + argv[at + 1 :]


def _fits(rule: Json, version: tuple[int, ...]) -> bool:
    since, until = rule.get("since"), rule.get("until")
    return bool(
        (not since or (version and version >= parse_version(since)))
        and (not until or (version and version < parse_version(until)))
    )


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first version number in a text: `2.1.330 (Claude Code)` -> (2, 1, 330)."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()

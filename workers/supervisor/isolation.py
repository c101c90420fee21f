"""Keeps processes of one user from inspecting each other."""

from __future__ import annotations

import os
import sys

from workers.supervisor.constants import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446  # numbers of system calls
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 36, 38


def become_subreaper() -> None:
    """Become the parent of each process below this one that loses its own. Linux only; elsewhere sessions must do."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def forbid_inspection() -> None:
    """Keep other programs of this user from reading this process's memory, where passwords are, until it execs."""
    _prctl(PR_SET_DUMPABLE, 0)


def can_isolate() -> bool:
    """Return True if Landlock has version 6 (Linux 6.12) and this user is not root: root may read everything."""
    return os.geteuid() != 0 and _landlock(LANDLOCK_CREATE_RULESET, None, 0, 1) >= 6


def isolate() -> bool:
    """Keep this process and all that it starts from inspecting other processes of this user.

    Environment, memory and open files are out of reach, and so are sudo and the like. Any Landlock domain does that.
    It needs one rule, and this one shuts off abstract sockets of others. Return False if the kernel can but did not.
    """
    if not can_isolate():
        return True
    rules = _landlock(LANDLOCK_CREATE_RULESET, b"".join(one.to_bytes(8, sys.byteorder) for one in (0, 0, 1)), 24, 0)
    if rules < 0:
        return False
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    is_isolated = _landlock(LANDLOCK_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return is_isolated


def _prctl(option: int, value: int) -> None:
    """Call prctl, if there is one."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def _landlock(number: int, *values: Any) -> int:
    """Call a system call of Landlock. Return its result, negative if there is none."""
    try:
        import ctypes

        words = [ctypes.c_long(one) if isinstance(one, int) else one for one in (number, *values)]
        return int(ctypes.CDLL(None).syscall(*words)) if sys.platform == "linux" else -1
    except (ImportError, OSError, AttributeError):
        return -1

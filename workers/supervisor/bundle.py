"""Builds the one file that is copied to hosts, and leads its line numbers back to the modules.

python -m workers.supervisor.bundle              print the file
python -m workers.supervisor.bundle --locate N   print the module and line that line N of the file comes from
"""

import hashlib
import re
import sys
from functools import cache
from pathlib import Path

# Each imports only modules before it.
MODULES = (
    "constants", "errors", "files", "procfs", "isolation", "programs", "versions", "logs", "processes", "watch",
    "scope", "run", "session_notes", "askpass", "git", "mirror", "spare", "worktree", "lfs", "submodules", "commit",
    "salvage", "sync", "checkout", "deliver", "execution", "agent", "checks", "steps", "launch", "request", "verbs",
    "main",
)  # fmt: skip
HEADER = """\
# Built from workers/supervisor/ by bundle.py. Each module begins at the line beside its name:
#   {map}
from __future__ import annotations
"""
# Replaced by empty lines, so that line numbers within a module stay the same.
_DROPPED = re.compile(
    r"^from (?:__future__|workers\.supervisor\.\w+) import (?:\([^)]*\)|.*)\n|^if TYPE_CHECKING:\n(?: .*\n|\n(?= ))+",
    re.M,
)


@cache
def source() -> bytes:
    """Return the text of the file."""
    begins = ", ".join(f"{line} {name}.py" for name, line in _begins().items())
    return (HEADER.format(map=begins) + "".join(map(_module, MODULES))).encode()


@cache
def sha256() -> str:
    """Return the hash of the file, which is its name on hosts."""
    return hashlib.sha256(source()).hexdigest()


def locate(line: int) -> tuple[str, int]:
    """Return the module's file name and the line in it that a line of the bundle (from 1) comes from.

    A line of the header is in bundle.py, at line 0. Raises ValueError after the last line.
    """
    if not 1 <= line <= source().count(b"\n"):
        raise ValueError(f"the supervisor's file has no line {line}: it has {source().count(bytes([10]))}")
    begun = [(name, line - first + 1) for name, first in _begins().items() if first <= line]
    return (f"{begun[-1][0]}.py", begun[-1][1]) if begun else ("bundle.py", 0)


def annotate(text: str) -> str:
    """Add the module and its line to each line of a traceback that this version of the file printed."""

    def with_place(found: re.Match[str]) -> str:
        name, line = locate(int(found[1]))
        return f"{found[0]} ({name}:{line})"

    return re.sub(rf'File "[^"\n]*{sha256()}[^"\n]*", line (\d+)', with_place, text)


@cache
def _begins() -> dict[str, int]:
    """Return the line of the bundle at which each module begins."""
    at, begins = HEADER.count("\n") + 1, {}
    for name in MODULES:
        begins[name] = at
        at += _module(name).count("\n")
    return begins


@cache
def _module(name: str) -> str:
    text = Path(__file__).with_name(f"{name}.py").read_text()
    return _DROPPED.sub(lambda found: "\n" * found[0].count("\n"), text)


def main(argv: list[str]) -> None:
    if not argv:
        sys.stdout.buffer.write(source())
    elif argv[0] == "--locate" and len(argv) == 2 and argv[1].isdigit():
        print("{}:{}".format(*locate(int(argv[1]))))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

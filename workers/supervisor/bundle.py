"""Builds the one file that is copied to hosts, and leads its line numbers back to the modules.

python -m workers.supervisor.bundle              print the file
python -m workers.supervisor.bundle --locate N   print the module and line that line N of the file comes from
"""

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
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
    count = len(source().splitlines())
    if not 1 <= line <= count:
        raise ValueError(f"the supervisor's file has no line {line}: it has {count}")
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
    """Return a module without types and without imports of the package, which become empty lines.

    So every line keeps its number. Compiling annotations would take 5 % of a start.
    """
    source = Path(__file__).with_name(f"{name}.py").read_bytes()
    tree, lines = ast.parse(source), source.split(b"\n")
    for line, begin, end in sorted(_annotations(tree, lines), reverse=True):
        lines[line] = lines[line][:begin] + lines[line][end:]
    for node in filter(_is_dropped, tree.body):
        lines[node.lineno - 1 : node.end_lineno] = [b""] * ((node.end_lineno or 0) - node.lineno + 1)
    return b"\n".join(lines).decode()


def _annotations(tree: ast.Module, lines: list[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield the line, begin and end of each annotation of a function that is on one line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and (hint := node.annotation) and hint.end_lineno == node.lineno:
            yield node.lineno - 1, node.col_offset + len(node.arg), hint.end_col_offset or 0
        elif isinstance(node, ast.FunctionDef) and (hint := node.returns) and hint.end_lineno == hint.lineno:
            line = hint.lineno - 1
            yield line, lines[line].rindex(b" ->", 0, hint.col_offset), hint.end_col_offset or 0


def _is_dropped(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__" or (node.module or "").startswith("workers.")
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def main(argv: list[str]) -> None:
    if not argv:
        sys.stdout.buffer.write(source())
    elif argv[0] == "--locate" and len(argv) == 2 and argv[1].isdigit():
        print("{}:{}".format(*locate(int(argv[1]))))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

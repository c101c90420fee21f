"""Prints the figures of the code and compares them with the limits of CONTRIBUTING.md. Standard library only.

`make metrics` runs it. The exit code is 1 when a limit is broken; `--where` lists each place that is over a limit.
"""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tools import words

TOP = Path(__file__).parents[1]
MEDIAN, NINETIETH, LONGEST, FILE, LOOSE = 5, 15, 40, 300, 150
CODE = ("app/", "workers/")
LONG_FILES = ("app/store/tables.py", "app/store/migrations/", "app/domain/lifecycle.py")
OTHER_PROGRAMS = ("workers/supervisor/", "app/cli/demo/forge/")  # their types are not counted
LOOSE_TYPE = re.compile(r"\bdict\[str, Any\]|\bJson\b")


@dataclass
class Figure:
    """One line of the output: a name, its value, the limit if it has one, and the places that break it."""

    name: str
    value: float
    limit: float | None = None
    places: list[str] = field(default_factory=list)

    @property
    def is_broken(self) -> bool:
        return self.limit is not None and self.value > self.limit

    def __str__(self) -> str:
        limit = "" if self.limit is None else f"  (limit {self.limit:g})"
        return f"{'!' if self.is_broken else ' '} {self.value:>6g}  {self.name}{limit}"


def main(arguments: list[str]) -> int:
    figures = [*functions(), *files(), loose_types(), *old_words(), *imports()]
    for figure in figures:
        print(figure)
        if "--where" in arguments and figure.is_broken:
            print("".join(f"            {place}\n" for place in figure.places), end="")
    return any(figure.is_broken for figure in figures)


def functions() -> Iterator[Figure]:
    """Lines from `def` to the end, without the docstring."""
    found = [(length(node), f"{path}:{node.lineno} {node.name}") for path in written() for node in defined(path)]
    lengths = sorted(lines for lines, _ in found)
    yield Figure("median of a function's lines", statistics.median(lengths), MEDIAN)
    yield Figure("nine functions of ten have at most so many lines", lengths[len(lengths) * 9 // 10], NINETIETH)
    long = [f"{lines} lines: {where}" for lines, where in sorted(found, reverse=True) if lines > LONGEST]
    yield Figure("lines of the longest function", lengths[-1], LONGEST, long)


def written() -> list[str]:
    """The code that is not made by Alembic."""
    return [path for path in python(*CODE) if "/migrations/" not in path]


def defined(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return lines
    return lines - ((node.body[0].end_lineno or 0) - node.body[0].lineno + 1)


def files() -> Iterator[Figure]:
    lines = {path: len(text(path).splitlines()) for path in python("") if not path.startswith(LONG_FILES)}
    for about, limit in (("code", 0), ("tests", None)):
        long = [(count, path) for path, count in lines.items() if count > FILE and is_test(path) == (about == "tests")]
        places = [f"{count} lines: {path}" for count, path in sorted(long, reverse=True)]
        yield Figure(f"files of {about} with more than {FILE} lines", len(long), limit, places)


def is_test(path: str) -> bool:
    return path.startswith("tests/")


def loose_types() -> Figure:
    """How often JSON stands where a type could."""
    found = {
        path: len(LOOSE_TYPE.findall(annotated(path))) for path in python(*CODE) if not path.startswith(OTHER_PROGRAMS)
    }
    most = sorted(((count, path) for path, count in found.items() if count), reverse=True)
    return Figure("dict[str, Any] and Json", sum(found.values()), LOOSE, [f"{count}: {path}" for count, path in most])


def annotated(path: str) -> str:
    """The text without imports."""
    return "\n".join(line for line in text(path).splitlines() if not line.lstrip().startswith(("from ", "import ")))


def old_words() -> Iterator[Figure]:
    for about, limit, seen in (("names", 0, words.in_names), ("prose", 0, words.in_prose)):
        places = [f"{path}:{line} {old}" for path in tracked() for line, old in seen(path, text(path))]
        yield Figure(f"old words in {about}", len(places), limit, places)


def imports() -> Iterator[Figure]:
    """How many imports deep a package is: 1 where no module of it imports another."""
    for package in ("app", "app/services", "app/store", "workers", "workers/agent", "workers/supervisor"):
        graph = {module(path): imported(path) for path in python(f"{package}/")}
        graph = {
            name: {other for other in others if other in graph and other != name} for name, others in graph.items()
        }
        arrows = sum(len(others) for others in graph.values())
        yield Figure(f"levels of imports in {package}, by {arrows} imports of {len(graph)} modules", depth(graph))


def depth(graph: dict[str, set[str]]) -> int:
    """The longest path. Raises ValueError with the modules of a cycle."""
    known: dict[str, int] = {}

    def of(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"These modules import each other: {', '.join(above[above.index(name) :])}")
        if name not in known:
            known[name] = 1 + max((of(other, (*above, name)) for other in graph[name]), default=0)
        return known[name]

    return max((of(name, ()) for name in graph), default=0)


def module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: str) -> set[str]:
    """The modules that are imported when this one is, as far as they can be names of modules."""
    found: set[str] = set()
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def python(*folders: str) -> list[str]:
    return [path for path in tracked() if path.endswith(".py") and path.startswith(folders)]


@cache
def tracked() -> list[str]:
    """Every text file of the project that people write, by its path from the top."""
    command = ["git", "ls-files", "*.py", "*.md", "*.toml"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.split() if (TOP / path).is_file()]


@cache
def text(path: str) -> str:
    return (TOP / path).read_text()


@cache
def tree(path: str) -> ast.Module:
    return ast.parse(text(path))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A prompt: an issue read as goal, constraints and validation. Its text is untrusted wherever it goes."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_BODY = 200_000

_SECTIONS = {
    "constraints": ("constraint", "constraints", "rules", "non-goals", "requirements"),
    "validation": (
        "validation",
        "acceptance criteria",
        "acceptance",
        "definition of done",
        "tests",
        "how to test",
    ),
}
_HEADING = re.compile(r"^#{1,6}\s+(.+)$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?(.+)$")
_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})[^`]*$")
_HIDDEN_HTML = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """What a CLI is asked to do. `text` is what it reads on its standard input."""

    goal: str
    constraints: tuple[str, ...]
    validation: tuple[str, ...]
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def clean(text: str) -> str:
    """Text without what a reader of the issue would not see: NUL and other control characters, zero-width and
    direction characters, HTML comments. Line ends become \\n."""
    return printable(_HIDDEN_HTML.sub("", text))


def printable(text: str) -> str:
    """Text without control and format characters, for where HTML means nothing. Line ends become \\n."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in lines if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))


def one_line(text: str, longest: int = 200) -> str:
    """A title: cleaned, on one line, cut at `longest` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def branch_name(number: int | str, title: str) -> str:
    """`task/42-fix-the-total`: only [a-z0-9-] of the title, at most 40 characters of it."""
    words = re.sub(r"[^a-z0-9]+", "-", unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower())
    return f"task/{number}-{words.strip('-')[:40].strip('-')}".rstrip("-")


def read_issue(title: str, body: str, checks: Iterable[str] = ()) -> Prompt:
    """The prompt of an issue. `checks` are the commands that will be run on the work: they are told to the CLI."""
    goal, sections = _split(clean(body)[:LONGEST_BODY])
    headline = one_line(title)
    constraints = tuple(sections["constraints"])
    validation = (*sections["validation"], *(f"`{check}` passes" for check in checks))
    return Prompt(headline, constraints, validation, _compose(headline, goal, constraints, validation))


def read_review(goal: str, summary: str, comments: Iterable[tuple[str, int | None, str]]) -> str:
    """The prompt of a review round: the summary, then each comment with its file and line."""
    lines = [
        f"A reviewer asked for changes to your work on: {goal}",
        "",
        clean(summary).strip() or "(no summary)",
    ]
    for path, line, text in comments:
        lines += ["", f"- {one_line(path)}{f':{line}' if line else ''}: {clean(text).strip()}"]
    return "\n".join([*lines, "", "Make the changes in the working tree and commit nothing else.", ""])


def read_again(text: str, why: str) -> str:
    """The prompt of another attempt: the same, with what went wrong before."""
    return f"{text}\n## The attempt before this one failed\n\n{printable(why).strip()}\n" if why else text


def _split(body: str) -> tuple[str, dict[str, list[str]]]:
    """The body without its known sections, and each known section's items."""
    goal: list[str] = []
    sections: dict[str, list[str]] = {name: [] for name in _SECTIONS}
    at: str | None = None
    in_code = False
    for line in body.split("\n"):
        in_code ^= bool(_FENCE.match(line))
        heading = None if in_code else _HEADING.match(line)
        if heading:
            at = _section(heading[1])
        if at is None:
            goal.append(line)
        elif not heading and line.strip():
            item = _ITEM.match(line)
            sections[at].append(item[1].strip() if item else line.strip())
    return "\n".join(goal).strip(), sections


def _section(heading: str) -> str | None:
    word = heading.strip().rstrip("#").rstrip().rstrip(":").lower()
    return next((name for name, words in _SECTIONS.items() if word in words), None)


def _compose(headline: str, goal: str, constraints: tuple[str, ...], validation: tuple[str, ...]) -> str:
    parts = [f"# {headline}", "", goal, ""] if goal else [f"# {headline}", ""]
    for name, items in (("Constraints", constraints), ("Validation", validation)):
        if items:
            parts += [f"## {name}", "", *(f"- {item}" for item in items), ""]
    return "\n".join(parts)

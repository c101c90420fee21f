"""Splits an issue's body into the goal, the constraints, the validation and the open items of task lists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.domain import markdown_blocks
from app.domain.markdown_blocks import Blocks

_WORDS = {
    "constraints": (
        "constraint", "constraints", "rules", "non-goals", "non goals", "requirements", "out of scope", "limitations",
        "restrictions", "guardrails", "must not", "do not", "boundaries", "technical requirements",
        "non-functional requirements",
    ),
    "validation": (
        "validation", "acceptance criteria", "acceptance criterion", "acceptance", "definition of done", "done when",
        "tests",
        "how to test", "how to verify", "how to validate", "verification", "success criteria", "test plan",
        "acceptance tests", "testing", "checks", "exit criteria", "dod",
    ),
}  # fmt: skip
_SECTION = {word: name for name, words in _WORDS.items() for word in words}
_BOLD = re.compile(r"^(?:\*\*|__)([^*_\n]{1,80})(?:\*\*:?|__:?)$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?(.+)$")
_TODO = re.compile(r"^\s*[-*+]\s+\[ \]\s+(.+)$")
_EMPTY = ("_no response_", "n/a", "none")  # an issue form writes the first into a field without an answer


@dataclass(frozen=True)
class Sections:
    """`goal` is the body without the known sections. `todo` are the open items of task lists in the goal."""

    goal: str
    constraints: tuple[str, ...]
    validation: tuple[str, ...]
    todo: tuple[str, ...]


def split(body: str) -> Sections:
    """The sections of a cleaned body, whose line ends are \\n. A body without known sections is all goal."""
    goal: list[str] = []
    found: dict[str, list[str]] = {name: [] for name in _WORDS}
    todo: list[str] = []
    current: str | None = None
    for line, heading, in_code in _lines(body):
        if heading is not None:
            current = section(heading)
        if current is None:
            goal.append(line)
            item = None if in_code else _TODO.match(line)
            todo += [item[1].strip()] if item else []
        elif heading is None and (words := _item(line)):
            found[current].append(words)
    return Sections("\n".join(goal).strip(), tuple(found["constraints"]), tuple(found["validation"]), tuple(todo))


def section(heading: str) -> str | None:
    """The section that a heading opens, or None. `✅ 3. Acceptance criteria (must):` opens validation."""
    word = re.sub(r"\s*\([^()]*\)$", "", heading[:200].strip().rstrip("#: ").strip("*_ "))
    word = re.sub(r"^[\W\d_]+|[\W_]+$", "", word.lower())
    return _SECTION.get(word)


def _lines(body: str) -> Iterator[tuple[str, str | None, bool]]:
    """(line, the heading it is or None, whether it is in a code block) for each line.

    A line in bold and an underlined line are headings only if they name a known section. The underline is left out.
    """
    blocks = markdown_blocks.parse(body)
    underlines = {
        number + 1 for number, heading in blocks.headings.items() if heading.underlined and section(heading.text)
    }
    for number, line in enumerate(body.split("\n")):
        if number not in underlines:
            yield line, _heading(blocks, number, line), number in blocks.fences


def _heading(blocks: Blocks, number: int, line: str) -> str | None:
    heading = blocks.headings.get(number)
    if heading and (not heading.underlined or section(heading.text)):
        return heading.text
    return None if number in blocks.fences else _bold_heading(line)


def _bold_heading(line: str) -> str | None:
    bold = _BOLD.match(line.strip()) if len(line) < 100 else None
    return bold[1] if bold and section(bold[1]) else None


def _item(line: str) -> str:
    item = _ITEM.match(line)
    words = (item[1] if item else line).strip()
    return "" if words.lower() in _EMPTY else words

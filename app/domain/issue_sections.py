"""An issue's body as people write them: what is wanted, what must be kept to, and how one sees that it is done."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
_HEADING = re.compile(r"^#{1,6}\s+(.+)$")
_BOLD = re.compile(r"^(?:\*\*|__)([^*_\n]{1,80})(?:\*\*:?|__:?)$")
_RULE = re.compile(r"^(?:-{3,}|={3,})$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?(.+)$")
_TODO = re.compile(r"^\s*[-*+]\s+\[ \]\s+(.+)$")
_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})[^`]*$")
_NOTHING = ("_no response_", "n/a", "none")  # what an issue form leaves where nobody wrote anything


@dataclass(frozen=True)
class Sections:
    """`goal` is the body without its known sections. `todo` are the open items of task lists in it."""

    goal: str
    constraints: tuple[str, ...]
    validation: tuple[str, ...]
    todo: tuple[str, ...]


def split(body: str) -> Sections:
    """The sections of a cleaned body. Without any that we know, all of it is the goal."""
    goal: list[str] = []
    found: dict[str, list[str]] = {name: [] for name in _WORDS}
    todo: list[str] = []
    at: str | None = None
    for line, heading, in_code in _lines(body):
        if heading is not None:
            at = section(heading)
        if at is None:
            goal.append(line)
            item = None if in_code else _TODO.match(line)
            todo += [item[1].strip()] if item else []
        elif heading is None and (words := _item(line)):
            found[at].append(words)
    return Sections("\n".join(goal).strip(), tuple(found["constraints"]), tuple(found["validation"]), tuple(todo))


def section(heading: str) -> str | None:
    """The section that a heading opens: `✅ 3. Acceptance criteria (must):` is validation. None for any other."""
    word = re.sub(r"\s*\([^()]*\)$", "", heading[:200].strip().rstrip("#: ").strip("*_ "))
    word = re.sub(r"^[\W\d_]+|[\W_]+$", "", word.lower())
    return _SECTION.get(word)


def _lines(body: str) -> Iterator[tuple[str, str | None, bool]]:
    """Each line, the heading it is if it is one, and whether it stands in a code block. A heading may also be a line
    in bold, or one that is underlined; those only where they name a section that we know."""
    lines = body.split("\n")
    in_code = underline = False
    for at, line in enumerate(lines):
        if underline:
            underline = False
            continue
        in_code ^= bool(_FENCE.match(line))
        heading = None if in_code else _heading(line)
        if heading is None and not in_code and _is_underlined(lines, at):
            heading, underline = line, True
        yield line, heading, in_code


def _heading(line: str) -> str | None:
    marked = _HEADING.match(line)
    if marked:
        return marked[1]
    bold = _BOLD.match(line.strip()) if len(line) < 100 else None
    return bold[1] if bold and section(bold[1]) else None


def _is_underlined(lines: list[str], at: int) -> bool:
    under = lines[at + 1].strip() if at + 1 < len(lines) else ""
    return len(lines[at]) < 100 and bool(_RULE.match(under)) and section(lines[at]) is not None


def _item(line: str) -> str:
    item = _ITEM.match(line)
    words = (item[1] if item else line).strip()
    return "" if words.lower() in _NOTHING else words

"""A command in a comment: `/retry`, `/cancel`, `/status`, `/help`, `/assign PLACE` at the start of a line."""

import re
from dataclasses import dataclass

from app.domain.visible_text import clean

VERBS = ("retry", "cancel", "status", "help", "assign")
LONGEST_ARGUMENT = 100

_LINE = re.compile(rf"/({'|'.join(VERBS)})(?:[ \t]+(\S.*?))?[ \t]*", re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")

HELP = """Say one of these at the start of a line:

- `/retry`: try again; if the issue was edited since it was taken, work on its new text
- `/cancel`: stop what runs and leave the issue alone
- `/status`: say how things stand
- `/assign PLACE`: give a waiting task to this host or agent

Only people who may write to the repository are heard."""


@dataclass(frozen=True)
class Command:
    """What somebody told us to do. `argument` is what stood behind the verb."""

    verb: str
    argument: str = ""


def read(text: str) -> Command | None:
    """The first command in a comment, or None. A line in a code block or a quotation is no command, nor is one that no
    reader of the comment sees."""
    fence = ""
    for line in clean(text).splitlines():
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) and line.strip() == mark[1] else fence
        elif mark:
            fence = mark[1]
        elif said := _LINE.fullmatch(line):
            return Command(said[1].lower(), (said[2] or "")[:LONGEST_ARGUMENT])
    return None

"""Parses a command in a comment: `/retry`, `/cancel`, `/status`, `/help` or `/assign HOST` at the start of a line."""

import re
from dataclasses import dataclass
from datetime import datetime

from app.domain import markdown_blocks
from app.domain.visible_text import clean

VERBS = ("retry", "cancel", "status", "help", "assign")
LONGEST_ARGUMENT = 100

_LINE = re.compile(rf"/({'|'.join(VERBS)})(?:[ \t](.*))?", re.IGNORECASE)
_COMMAND = re.compile(rf"^/(?:{'|'.join(VERBS)})\b", re.IGNORECASE | re.MULTILINE)

HELP = """Write one of these at the start of a line:

- `/retry`: try again; if the issue was edited, work on its new text
- `/cancel`: stop the work and leave the issue alone
- `/status`: show how the task stands
- `/assign HOST` or `/assign AGENT`: give a waiting task to this host or agent

Only people with write permission can give commands."""


@dataclass(frozen=True)
class Command:
    """A command; `argument` is the text after the verb."""

    verb: str
    argument: str = ""


@dataclass(frozen=True)
class CommandRequest:
    """A command as it was found in a comment on an issue or a pull request."""

    forge: str
    comment_id: int
    repository_id: int
    full_name: str
    number: int
    is_pull: bool
    author: str  # the login of the comment's author
    allowed: bool | None  # whether the author has write permission, as the delivery says; None if it does not
    commented_at: str | None  # by the forge's clock, as it wrote it
    version: int | None  # of the task when the delivery came; None if no delivery brought the command
    verb: str
    argument: str


@dataclass(frozen=True)
class QueuedCommand(CommandRequest):
    """A command with what became of it."""

    id: int
    tries: int
    done_at: datetime | None  # when it was executed or refused
    result: str | None  # taken, refused or ignored
    reply: str | None


def parse_command(text: str) -> Command | None:
    """The first command in a comment, or None. Code blocks, quotations and hidden text are skipped."""
    seen = clean(text)[: markdown_blocks.LONGEST]
    if not _COMMAND.search(seen):
        return None
    fences = markdown_blocks.parse(seen).fences
    for number, line in enumerate(seen.split("\n")):
        if number not in fences and (found := _LINE.fullmatch(line)):
            return Command(found[1].lower(), (found[2] or "").strip(" \t")[:LONGEST_ARGUMENT])
    return None

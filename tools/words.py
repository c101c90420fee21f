"""Finds words that the project no longer uses: in names of modules and code, and in prose."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import PurePath

# part of a name -> what is said instead
PARTS = {
    "debt debts owe owes owed owing": "outbox entry",
    "pay pays paid payer payers settle settles settled": "deliver",
    "speech": "forge_messages",
    "handover": "previous_runs",
    "seal sealed": "receipt_signature",
    "taxonomy": "failures",
    "bell bells ear ears": "notify, listener",
    "hear hears heard hearing": "what is done with it: apply, record, fetch",
    "lookout looked": "poll",
    "briefs": "task_details",
    "capset capsets": "requirement_sets",
}
# whole names of code
WHOLE = {
    "What": "FactKind",
    "Move": "Transition",
    "place places Place": "host, or: host or agent",
    "look looks": "poll, probe",
    "posts": "forge_comments",
    "claims": "dequeue",
    "brief": "task_details",
    "told_on": "usage_day",
    "handed": "acknowledged",
    "stop_for": "stop_reason",
    "in_a_row": "consecutive",
}
# docstrings, comments, messages and documents
PROSE = {
    r"debts?|ow(e|es|ed|ing)": "outbox entry",
    r"pay|pays|paid|payers?|settle[sd]?": "deliver",
    r"hand-?overs?": "previous runs",
    r"seal(s|ed)?": "signature",
    r"taxonomy": "failures",
    r"lookout": "poll",
    r"bells?": "notification",
    r"briefs": "details of a task",
    r"capsets?": "requirement set",
    r"hears?|heard|hearing": "what is done with it: get, record, apply",
    r"doors?": "entry point, route, access check",
    r"vouch(es|ed)?": "confirm, prove",
    r"whoever|somebody|has it written down|it is told": "who does it, in active voice",
}
HISTORY = (
    "docs/decisions/",
    "app/store/migrations/",
    "CHANGELOG.md",
    "tools/",
    "tests/test_words.py",
)  # what is named there is named for its own sake
IN_TESTS = ("place", "places", "Place")  # a folder, and both kinds of runner
OLD_PARTS = {old for olds in PARTS for old in olds.split()}
OLD_NAMES = {old for olds in WHOLE for old in olds.split()}
PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
OLD_PROSE = re.compile(rf"\b({'|'.join(PROSE)})\b", re.IGNORECASE)


def in_names(path: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, name) for the module and for each name in its code that has an old word in it."""
    if path.startswith(HISTORY) or not path.endswith(".py"):
        return
    if is_old(PurePath(path).stem, path):
        yield 1, path
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and is_old(token.string, path):
            yield token.start[0], token.string


def is_old(name: str, path: str) -> bool:
    if name.startswith("test_"):
        return False  # a sentence
    if name.strip("_") in OLD_NAMES:
        return not (path.startswith("tests/") and name.strip("_") in IN_TESTS)
    return any(part.lower() in OLD_PARTS for part in PART.findall(name))


def in_prose(path: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, word) for each old word in strings and comments of code, or in a document."""
    if path.startswith(HISTORY):
        return
    for line, prose in prose_of(path, text):
        yield from ((line + prose[: found.start()].count("\n"), found.group()) for found in OLD_PROSE.finditer(prose))


def prose_of(path: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, text) for each piece of prose of a file."""
    if not path.endswith(".py"):
        yield 1, text
        return
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            yield token.start[0], token.string

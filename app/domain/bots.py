"""Whose word counts on a forge: not our own echo, and no bot that was not invited."""

import re
from collections.abc import Collection

# Accounts bear no mark that says "bot": their names do, or an id below zero, which the forge keeps for itself.
_BOT = re.compile(r"(?:^|[-_.\[(])bot(?:[\])]|$)|\[bot\]|^(?:renovate|dependabot)\b", re.IGNORECASE)


def is_bot(login: str, id_: int = 1, full_name: str = "") -> bool:
    """Whether an account looks like a program's."""
    return id_ < 0 or bool(_BOT.search(login) or _BOT.search(full_name))


def is_heard(login: str, id_: int, full_name: str, ours: int | None, invited: Collection[str]) -> bool:
    """Whether what this account does may start or command anything."""
    if id_ == ours:
        return False
    return login.lower() in {name.lower() for name in invited} or not is_bot(login, id_, full_name)

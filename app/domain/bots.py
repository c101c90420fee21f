"""Decides whose actions on a forge count: not our own, and not those of uninvited bots."""

import re
from collections.abc import Collection

# The API does not mark bots. Their names give them away, or an id below zero, which the forge keeps for itself.
_BOT = re.compile(r"(?:^|[-_.\[(])bot(?:[\])]|$)|\[bot\]|^(?:renovate|dependabot)\b", re.IGNORECASE)


def is_accepted(login: str, id_: int, full_name: str, ours: int | None, invited: Collection[str]) -> bool:
    """Whether the actions of an account may start or command work. `ours` is our own id, `invited` logins of bots."""
    if id_ == ours:
        return False
    return login.lower() in {name.lower() for name in invited} or not is_bot(login, id_, full_name)


def is_bot(login: str, id_: int = 1, full_name: str = "") -> bool:
    """Whether an account looks like a program's."""
    return id_ < 0 or bool(_BOT.search(login) or _BOT.search(full_name))

"""Who may start and command work: people who may write; not ourselves, and no bot that was not invited."""

from app.domain import bots
from app.ports import Account, Fleet, Forge, Issue, Requester
from app.store import fleet_config
from app.store.tables import Row


def is_heard(fleet: Fleet, forge: Forge, who: Account) -> bool:
    """Whether somebody is neither ourselves nor a bot that nobody invited."""
    with fleet.engine.begin() as conn:
        row = fleet_config.forge(conn, forge.name)
    return bots.is_heard(who.login, who.id, who.full_name, forge.bot().id, row.bots if row else ())


def may_ask(fleet: Fleet, forge: Forge, full_name: str, issue: Issue, requester: Requester | None) -> bool:
    """Only people who may write start work: whoever put the label there, else who opened the issue with it; and no bot
    that was not invited.

    Where our token may not ask, the label itself is the proof: Forgejo drops labels of those who may not write.
    """
    who = requester.account if requester else issue.author
    return is_heard(fleet, forge, who) and forge.may_write(full_name, who.login) is not False


def may_command(forge: Forge, row: Row) -> bool:
    """The forge says with a comment whether its author may write. Where it did not, we ask."""
    return bool(row["allowed"]) or may_write(forge, row["full_name"], row["author"])


def may_write(forge: Forge, full_name: str, login: str) -> bool:
    """Whether somebody surely may write."""
    return _may_write(forge, full_name, login) is True


def may_not_write(forge: Forge, full_name: str, login: str) -> bool:
    """Whether somebody surely may not: what the forge does not tell us is held against nobody."""
    return _may_write(forge, full_name, login) is False


def _may_write(forge: Forge, full_name: str, login: str) -> bool | None:
    """Where our token may not ask that, whether the forge would give them issues to work on, which takes the same
    right; None where it does not tell either."""
    may = forge.may_write(full_name, login)
    return forge.is_assignable(full_name, login) if may is None else may

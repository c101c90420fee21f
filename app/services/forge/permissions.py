"""Checks who may start and command work: people with write permission, and invited bots; never the bot itself."""

from app.domain import bots
from app.domain.comment_command import CommandRequest
from app.ports import Account, Fleet, Forge, Issue, Requester
from app.store import fleet_config


def is_accepted(fleet: Fleet, forge: Forge, account: Account) -> bool:
    """Whether an account is neither our own nor a bot that `bots` in fleet.toml does not name."""
    with fleet.engine.begin() as conn:
        record = fleet_config.forge(conn, forge.name)
    invited = record.bots if record else ()
    return bots.is_accepted(account.login, account.id, account.full_name, forge.bot().id, invited)


def may_request(fleet: Fleet, forge: Forge, full_name: str, issue: Issue, requester: Requester | None) -> bool:
    """Whether an account may request work on an issue: the requester, else the issue's author.

    If our token may not ask for permissions, the label is proof enough: Forgejo ignores labels by people without write
    permission.
    """
    account = requester.account if requester else issue.author
    return is_accepted(fleet, forge, account) and forge.may_write(full_name, account.login) is not False


def may_command(forge: Forge, command: CommandRequest) -> bool:
    """Whether the author of a command may write. The forge is asked if the delivery does not say so."""
    return bool(command.allowed) or may_write(forge, command.full_name, command.author)


def may_write(forge: Forge, full_name: str, login: str) -> bool:
    """Whether an account certainly has write permission."""
    return _write_permission(forge, full_name, login) is True


def may_not_write(forge: Forge, full_name: str, login: str) -> bool:
    """Whether an account certainly lacks write permission."""
    return _write_permission(forge, full_name, login) is False


def _write_permission(forge: Forge, full_name: str, login: str) -> bool | None:
    """If our token may not ask for permissions, ask whether issues can be assigned to the account, which takes the same
    permission. None if the forge does not say either."""
    may = forge.may_write(full_name, login)
    return forge.is_assignable(full_name, login) if may is None else may

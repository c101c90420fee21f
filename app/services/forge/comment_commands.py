"""Obeys commands in comments: each once, whoever heard of it and however often; answered by reactions and one reply."""

from collections.abc import Mapping

import structlog

from app.domain import comment_command, forge_messages
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.task import Task
from app.forgejo.hints import Hint
from app.ports import Comment, Fleet, Forge
from app.services.forge import command_handlers, issues, permissions
from app.store import comment_commands, fleet_config, tasks
from app.store.tables import Row

log = structlog.get_logger()
REACTION = {command_handlers.TAKEN: "rocket", command_handlers.REFUSED: "confused"}


def hear(fleet: Fleet, forge_name: str, hint: Hint) -> None:
    """Keep the command of a comment that was just brought, if it holds one, and how far its task had come then. Where
    neither a rule nor a task of ours is, we say nothing: an organisation's hook brings the talk of all of it."""
    said = hint.comment
    if said is None or hint.number is None or comment_command.read(said.text) is None:
        return
    where = (forge_name, hint.repository_id, hint.number)
    with fleet.engine.begin() as conn:
        task = tasks.of_pull(conn, *where, hint.branch or "") if hint.is_pull else tasks.of_issue(conn, *where)
        if task is None and fleet_config.rule_for(conn, forge_name, hint.full_name) is None:
            return
    _keep(fleet, forge_name, said.id, said.text, {
        "repository_id": hint.repository_id, "full_name": hint.full_name, "number": hint.number,
        "is_pull": hint.is_pull, "author": hint.sender.login, "allowed": said.may_write,
        "commented_at": said.created_at, "version": task.version if task else 0,
    })  # fmt: skip


def find(fleet: Fleet, forge: Forge, repository_id: int, full_name: str, comment: Comment) -> None:
    """Keep the command of a comment that was read from the forge. One that was edited may have said something else."""
    if comment.created_at != comment.updated_at or not permissions.is_heard(fleet, forge, comment.author):
        return
    _keep(fleet, forge.name, comment.id, comment.body, {
        "repository_id": repository_id, "full_name": full_name, "number": comment.number, "is_pull": comment.is_pull,
        "author": comment.author.login, "allowed": None, "commented_at": comment.created_at, "version": None,
    })  # fmt: skip


def obey(fleet: Fleet) -> int:
    """Carry out and answer every command that is due; returns how many."""
    with fleet.engine.begin() as conn:
        waiting = comment_commands.take(conn, fleet.clock())
    for row in waiting:
        _obey(fleet, row)
    return len(waiting)


def _keep(fleet: Fleet, forge_name: str, comment: int, text: str, values: Mapping[str, object]) -> None:
    said = comment_command.read(text)
    if said is None:
        return
    with fleet.engine.begin() as conn:
        given = {"verb": said.verb, "argument": said.argument, **values}
        comment_commands.keep(conn, forge_name, comment, given, fleet.clock())


def _obey(fleet: Fleet, row: Row) -> None:
    try:
        forge = fleet.forges(row["forge"])
        if row["done_at"] is None:
            _carry_out(fleet, forge, row)
        _reply(fleet, forge, row)
    except Unavailable as later:
        return _later(fleet, row, str(later), later.retry_after)
    except Refused as no:
        if no.kind is Kind.UNAUTHORIZED:  # a token is being rotated
            return _later(fleet, row, str(no))
        return _given_up(fleet, row, str(no))
    except Exception as broken:
        log.exception("a command broke", comment=row["comment_id"])
        if row["tries"] >= comment_commands.TRIES:
            return _given_up(fleet, row, repr(broken))
        return _later(fleet, row, repr(broken))
    with fleet.engine.begin() as conn:
        comment_commands.answered(conn, row["id"], fleet.clock())


def _carry_out(fleet: Fleet, forge: Forge, row: Row) -> None:
    """What is said on somebody's own pull request is not said to us, and gets no answer at all."""
    task = _task(fleet, forge, row)
    if task is None and row["is_pull"]:
        return _done(fleet, row, (command_handlers.IGNORED, None))
    forge.add_reaction(row["full_name"], row["comment_id"], "eyes")
    if not permissions.may_command(forge, row):
        return _done(fleet, row, (command_handlers.REFUSED, None))
    try:
        answer = command_handlers.do(fleet, forge, row, task)
    except Unavailable:
        raise
    except Refused as no:
        answer = (command_handlers.REFUSED, f"`/{row['verb']}` was not done:\n\n{forge_messages.fenced(str(no))}")
    _done(fleet, row, answer)


def _task(fleet: Fleet, forge: Forge, row: Row) -> Task | None:
    """The task of the issue or pull request that was commented on; looked for on the forge if we never met it."""
    found = _known(fleet, row)
    if found:
        return found
    if row["is_pull"]:
        pull = forge.pull(row["full_name"], row["number"])
        return _known(fleet, row, pull.branch) if pull else None
    issues.look_at_issue(fleet, forge.name, row["full_name"], row["repository_id"], row["number"])
    return _known(fleet, row)


def _known(fleet: Fleet, row: Row, branch: str = "") -> Task | None:
    where = (row["forge"], row["repository_id"], row["number"])
    with fleet.engine.begin() as conn:
        return tasks.of_pull(conn, *where, branch) if row["is_pull"] else tasks.of_issue(conn, *where)


def _done(fleet: Fleet, row: Row, answer: command_handlers.Answer) -> None:
    """A command whose effect was written down with it is done already: this changes nothing then."""
    with fleet.engine.begin() as conn:
        comment_commands.done(conn, row["id"], fleet.clock(), *answer)


# --- answering -------------------------------------------------------------------------------------------


def _reply(fleet: Fleet, forge: Forge, row: Row) -> None:
    with fleet.engine.begin() as conn:
        done = comment_commands.get(conn, row["id"])
    if done["reply"]:
        mark = f"<!-- fleet:command={done['comment_id']} kind=reply -->"
        text = fleet.mask.text(f"**agent-fleet** · {done['reply']}")
        forge.write_comment(done["full_name"], done["number"], mark, text, None)
    if done["result"] in REACTION:
        forge.add_reaction(done["full_name"], done["comment_id"], REACTION[done["result"]])


def _later(fleet: Fleet, row: Row, why: str, wait: float | None = None) -> None:
    with fleet.engine.begin() as conn:
        comment_commands.postpone(conn, row, fleet.clock(), fleet.mask.text(why), wait)


def _given_up(fleet: Fleet, row: Row, why: str) -> None:
    log.warning("a command could not be answered", comment=row["comment_id"], why=why)
    with fleet.engine.begin() as conn:
        if comment_commands.get(conn, row["id"])["done_at"] is None:
            comment_commands.done(conn, row["id"], fleet.clock(), command_handlers.REFUSED, None)
        comment_commands.answered(conn, row["id"], fleet.clock(), fleet.mask.text(why))

"""Executes commands in comments: each once, however often it is found, with reactions and at most one reply."""

from functools import partial

import structlog

from app.domain import comment_command, forge_messages
from app.domain.comment_command import CommandRequest, QueuedCommand
from app.domain.errors import Refused, Unavailable
from app.domain.task import Task
from app.forgejo.hints import Hint, NewComment
from app.ports import Comment, Fleet, Forge
from app.services.attempts import attempt
from app.services.forge import command_handlers, issues, permissions
from app.store import comment_commands, fleet_config, tasks

log = structlog.get_logger()
MOST_TRIES = 10  # of a command that fails by an error in agent-fleet
REACTION = {command_handlers.TAKEN: "rocket", command_handlers.REFUSED: "confused"}


def queue_from_delivery(fleet: Fleet, forge_name: str, hint: Hint, comment: NewComment) -> None:
    """Queue the command in a comment that a delivery brought, with the version of its task at this moment.

    A comment is skipped if there is neither a rule nor a task for it: an organisation's hook sends all of its comments.
    """
    command = comment_command.parse_command(comment.text)
    if command is None or hint.number is None:
        return
    where = (forge_name, hint.repository_id, hint.number)
    with fleet.engine.begin() as conn:
        task = (
            tasks.find_by_pull(conn, *where, hint.branch or "") if hint.is_pull else tasks.find_by_issue(conn, *where)
        )
        if task is None and fleet_config.rule_for(conn, forge_name, hint.full_name) is None:
            return
        request = CommandRequest(
            forge=forge_name, comment_id=comment.id, repository_id=hint.repository_id, full_name=hint.full_name,
            number=hint.number, is_pull=hint.is_pull, author=hint.sender.login, allowed=comment.may_write,
            commented_at=comment.created_at, version=task.version if task else 0, verb=command.verb,
            argument=command.argument,
        )  # fmt: skip
        comment_commands.add(conn, request, fleet.clock())


def queue_from_comment(fleet: Fleet, forge: Forge, repository_id: int, full_name: str, comment: Comment) -> None:
    """Queue the command in a comment that was read from the forge. An edited comment is skipped: it may have said
    something else before."""
    command = comment_command.parse_command(comment.body)
    if command is None or comment.created_at != comment.updated_at:
        return
    if not permissions.is_accepted(fleet, forge, comment.author):
        return
    request = CommandRequest(
        forge=forge.name, comment_id=comment.id, repository_id=repository_id, full_name=full_name,
        number=comment.number, is_pull=comment.is_pull, author=comment.author.login, allowed=None,
        commented_at=comment.created_at, version=None, verb=command.verb, argument=command.argument,
    )  # fmt: skip
    with fleet.engine.begin() as conn:
        comment_commands.add(conn, request, fleet.clock())


def execute_commands(fleet: Fleet) -> int:
    """Execute and answer every command that is due; returns how many."""
    with fleet.engine.begin() as conn:
        held = comment_commands.take(conn, fleet.clock())
    for command in held:
        _execute_and_answer(fleet, command)
    return len(held)


def _execute_and_answer(fleet: Fleet, command: QueuedCommand) -> None:
    """Afterwards the command is answered, postponed or given up: see app/services/attempts.py."""
    failure = attempt(partial(_try, fleet, command), command.tries, MOST_TRIES, comment=command.comment_id)
    if failure and failure.final:
        return _give_up(fleet, command, failure.why)
    with fleet.engine.begin() as conn:
        if failure:
            why = fleet.mask.text(failure.why)
            comment_commands.postpone(conn, command, fleet.clock(), why, failure.retry_after)
        else:
            comment_commands.mark_answered(conn, command.id, fleet.clock())


def _try(fleet: Fleet, command: QueuedCommand) -> None:
    forge = fleet.forges(command.forge)
    if command.done_at is None:
        _execute(fleet, forge, command)
    _answer(fleet, forge, command)


def _execute(fleet: Fleet, forge: Forge, command: QueuedCommand) -> None:
    """A comment on a pull request without a task is not meant for us, so it gets no answer."""
    task = _find_task(fleet, forge, command)
    if task is None and command.is_pull:
        return _mark_done(fleet, command, (command_handlers.IGNORED, None))
    forge.add_reaction(command.full_name, command.comment_id, "eyes")
    if not permissions.may_command(forge, command):
        return _mark_done(fleet, command, (command_handlers.REFUSED, None))
    try:
        answer = command_handlers.handle(fleet, forge, command, task)
    except Unavailable:
        raise
    except Refused as no:
        why = forge_messages.fenced(str(no))
        answer = (command_handlers.REFUSED, f"`/{command.verb}` was refused:\n\n{why}")
    _mark_done(fleet, command, answer)


def _find_task(fleet: Fleet, forge: Forge, command: QueuedCommand) -> Task | None:
    """The task of the issue or pull request that was commented on. If it is unknown, the forge is asked."""
    found = _stored_task(fleet, command)
    if found:
        return found
    if command.is_pull:
        pull = forge.pull(command.full_name, command.number)
        return _stored_task(fleet, command, pull.branch) if pull else None
    issues.sync_issue(fleet, forge.name, command.full_name, command.repository_id, command.number)
    return _stored_task(fleet, command)


def _stored_task(fleet: Fleet, command: QueuedCommand, branch: str = "") -> Task | None:
    where = (command.forge, command.repository_id, command.number)
    with fleet.engine.begin() as conn:
        return tasks.find_by_pull(conn, *where, branch) if command.is_pull else tasks.find_by_issue(conn, *where)


def _mark_done(fleet: Fleet, command: QueuedCommand, answer: command_handlers.Answer) -> None:
    """Does nothing if the handler marked it in the transaction of its effect."""
    with fleet.engine.begin() as conn:
        comment_commands.mark_done(conn, command.id, fleet.clock(), *answer)


def _answer(fleet: Fleet, forge: Forge, command: QueuedCommand) -> None:
    with fleet.engine.begin() as conn:
        done = comment_commands.get(conn, command.id)
    if done.reply:
        marker = f"<!-- fleet:command={done.comment_id} kind=reply -->"
        text = fleet.mask.text(f"**agent-fleet** · {done.reply}")
        forge.write_comment(done.full_name, done.number, marker, text, None)
    if done.result in REACTION:
        forge.add_reaction(done.full_name, done.comment_id, REACTION[done.result])


def _give_up(fleet: Fleet, command: QueuedCommand, why: str) -> None:
    log.warning("a command could not be answered", comment=command.comment_id, why=why)
    with fleet.engine.begin() as conn:
        comment_commands.mark_done(conn, command.id, fleet.clock(), command_handlers.REFUSED, None)
        comment_commands.mark_answered(conn, command.id, fleet.clock(), fleet.mask.text(why))

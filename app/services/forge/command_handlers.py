"""Handles each command of a comment: help, status, retry, cancel, assign."""

from collections.abc import Callable, Mapping
from datetime import datetime

from app.domain import comment_command, forge_messages
from app.domain.comment_command import QueuedCommand
from app.domain.errors import Kind, Refused
from app.domain.event import Event
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State, Task
from app.ports import Fleet, Forge
from app.services.dispatch import placement
from app.services.forge import issue_text
from app.store import comment_commands, hosts, runs, tasks

TAKEN, REFUSED, IGNORED = "taken", "refused", "ignored"

Answer = tuple[str, str | None]  # one of these, and the reply, if any


def handle(fleet: Fleet, forge: Forge, command: QueuedCommand, task: Task | None) -> Answer:
    """Execute a command. Raises Refused with the reason if it has no effect."""
    return _HANDLERS[command.verb](fleet, forge, command, task)


def _help(_: Fleet, __: Forge, ___: QueuedCommand, ____: Task | None) -> Answer:
    return TAKEN, comment_command.HELP


def _status(fleet: Fleet, _: Forge, __: QueuedCommand, task: Task | None) -> Answer:
    known = _require(task)
    with fleet.engine.begin() as conn:
        run = runs.get(conn, known.id, known.run) if known.run else None
    seen = f" Last heartbeat: {run.seen_at:%Y-%m-%d %H:%M:%S} UTC." if run and run.seen_at else ""
    tries = f" Run {known.run}, {known.retry_count} of {known.max_retries} retries used." if known.run else ""
    return TAKEN, f"{forge_messages.sentence(known)}{tries}{seen}"


def _retry(fleet: Fleet, forge: Forge, command: QueuedCommand, task: Task | None) -> Answer:
    """Try again. If the text was edited, the new text is accepted, even if there is nothing to try again."""
    known = _require(task)
    issue = issue_text.find_edit(fleet, forge, command.full_name, known)
    if issue and not issue_text.accept_edit(
        fleet, forge, command.full_name, known, issue, command.author, _key(command), lambda note: _saw(command, note)
    ):
        return (
            REFUSED,
            "The bot has only now noticed that the issue was edited. Read the new text, then write `/retry`.",
        )
    refused = _record(fleet, command, known, FactKind.RETRY, f"retry {_key(command)}")
    if refused is None:
        return TAKEN, None
    if issue:
        return TAKEN, "The next run works on the new text of the issue."
    raise refused


def _saw(command: QueuedCommand, note: Event) -> bool:
    """Whether the author of a command could know of an edit: it was noted before the delivery of the command came, or
    before the command was written, by the forge's clock."""
    if command.version is not None:
        return note.seq <= command.version
    noted, written = _parse_time(note.detail.get("noted_at")), _parse_time(command.commented_at)
    return noted is None or written is None or noted <= written


def _parse_time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _cancel(fleet: Fleet, _: Forge, command: QueuedCommand, task: Task | None) -> Answer:
    known = _require(task)
    if known.state is State.CANCELLED:
        return TAKEN, None
    refused = _record(fleet, command, known, FactKind.CANCEL, _key(command))
    if refused:
        raise refused
    return TAKEN, None


def _assign(fleet: Fleet, _: Forge, command: QueuedCommand, task: Task | None) -> Answer:
    """The work is given away at most once: if the process dies in the middle, it is not repeated."""
    known, name = _require(task), command.argument
    with fleet.engine.begin() as conn:
        if not comment_commands.begin(conn, command.id, fleet.clock()):
            return (
                REFUSED,
                "This was interrupted and may be done. Check with `/status`, and write it again if it is not.",
            )
        is_host = hosts.machine(conn, name) is not None
    if not name:
        raise Refused(Kind.INVALID, "Name the host or agent: `/assign HOST` or `/assign AGENT`.")
    (placement.place_on_host if is_host else placement.give_to_agent)(fleet, known.task_id, name)
    return TAKEN, None


def _require(task: Task | None) -> Task:
    if task is None:
        raise Refused(
            Kind.UNKNOWN, "There is no task here: put an `agent:` label on the issue, or assign it to the bot."
        )
    return task


def _record(fleet: Fleet, command: QueuedCommand, task: Task, kind: FactKind, key: str) -> Refused | None:
    """Record a fact and mark the command as done in one transaction, so that it happens once. Returns the refusal, if
    the fact has no effect."""
    fact = Fact(kind, {"by": command.author, "comment": command.comment_id}, key=key)
    with fleet.engine.begin() as conn:
        if not comment_commands.lock_if_open(conn, command.id):
            return None
        try:
            tasks.record(conn, task.id, fact, fleet.clock())
        except Refused as refused:
            return refused
        comment_commands.mark_done(conn, command.id, fleet.clock(), TAKEN, None)
    fleet.nudge.soon()
    return None


def _key(command: QueuedCommand) -> str:
    return f"comment {command.comment_id}"


_HANDLERS: Mapping[str, Callable[[Fleet, Forge, QueuedCommand, Task | None], Answer]] = {
    "help": _help,
    "status": _status,
    "retry": _retry,
    "cancel": _cancel,
    "assign": _assign,
}

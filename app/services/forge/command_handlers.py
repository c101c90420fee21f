"""What each command does: help, status, retry, cancel, assign. Told as an answer: taken or refused, and what to say."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from app.domain import comment_command, forge_messages
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State, Task
from app.ports import Fleet, Forge
from app.services.dispatch import placement
from app.services.forge import issue_text
from app.store import comment_commands, hosts, runs, tasks
from app.store.tables import Row

TAKEN, REFUSED, IGNORED = "taken", "refused", "ignored"

Answer = tuple[str, str | None]  # taken or refused, and what to reply, if anything


def do(fleet: Fleet, forge: Forge, row: Row, task: Task | None) -> Answer:
    """Carry a command out. Raises Refused with the sentence why it has no effect."""
    return _DO[row["verb"]](fleet, forge, row, task)


def _help(_: Fleet, __: Forge, ___: Row, ____: Task | None) -> Answer:
    return TAKEN, comment_command.HELP


def _status(fleet: Fleet, _: Forge, __: Row, task: Task | None) -> Answer:
    known = _wanted(task)
    with fleet.engine.begin() as conn:
        run = runs.get(conn, known.id, known.run) if known.run else None
    seen = f" Last sign of life: {run['seen_at']:%Y-%m-%d %H:%M:%S} UTC." if run and run["seen_at"] else ""
    tries = f" Run {known.run}, {known.retry_count} of {known.max_retries} retries used." if known.run else ""
    return TAKEN, f"{forge_messages.sentence(known)}{tries}{seen}"


def _retry(fleet: Fleet, forge: Forge, row: Row, task: Task | None) -> Answer:
    """Try again. If the text was edited, the new one counts from now on, also where nothing is to be tried again."""
    known = _wanted(task)
    issue = issue_text.edited(fleet, forge, row["full_name"], known)
    if issue and not issue_text.accept(
        fleet, forge, row["full_name"], known, issue, row["author"], _key(row), lambda note: _saw(row, note)
    ):
        return REFUSED, "The issue was edited, and the new text was only noted now. Read it, and say `/retry` again."
    refused = _record(fleet, row, known, FactKind.RETRY, f"retry {_key(row)}")
    if refused is None:
        return TAKEN, None
    if issue:
        return TAKEN, "The new text of the issue counts from the next run on."
    raise refused


def _saw(row: Row, note: Mapping[str, Any]) -> bool:
    """Whether whoever commanded could know of an edit that we noted: it was noted before the command was brought to us,
    or by the forge's clock before it was written."""
    if row["version"] is not None:
        return bool(note["seq"] <= row["version"])
    noted, said = _moment(note["detail"].get("noted_at")), _moment(row["commented_at"])
    return noted is None or said is None or noted <= said


def _moment(written: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(written) if written else None
    except ValueError:
        return None


def _cancel(fleet: Fleet, _: Forge, row: Row, task: Task | None) -> Answer:
    known = _wanted(task)
    if known.state is State.CANCELLED:
        return TAKEN, None
    refused = _record(fleet, row, known, FactKind.CANCEL, _key(row))
    if refused:
        raise refused
    return TAKEN, None


def _assign(fleet: Fleet, _: Forge, row: Row, task: Task | None) -> Answer:
    """A place is given work at most once: whoever died in the middle of it does not try again."""
    known, place = _wanted(task), row["argument"]
    with fleet.engine.begin() as conn:
        if not comment_commands.begin(conn, row["id"], fleet.clock()):
            return REFUSED, "This was interrupted and may have been done. `/status` shows it; say it again if not."
        is_host = hosts.host(conn, place) is not None
    if not place:
        raise Refused(Kind.INVALID, "Say which place: `/assign HOST` or `/assign AGENT`.")
    (placement.to_host if is_host else placement.to_agent)(fleet, known.task_id, place)
    return TAKEN, None


def _wanted(task: Task | None) -> Task:
    if task is None:
        raise Refused(
            Kind.UNKNOWN, "There is no task here: put an `agent:` label on the issue, or assign it to the bot."
        )
    return task


def _record(fleet: Fleet, row: Row, task: Task, what: FactKind, key: str) -> Refused | None:
    """The fact, and that its command is done, in one transaction: exactly once. The refusal, if it has no effect."""
    fact = Fact(what, {"by": row["author"], "comment": row["comment_id"]}, key=key)
    with fleet.engine.begin() as conn:
        if not comment_commands.is_open(conn, row["id"]):
            return None
        try:
            tasks.record(conn, task.id, fact, fleet.clock())
        except Refused as refused:
            return refused
        comment_commands.done(conn, row["id"], fleet.clock(), TAKEN, None)
    fleet.nudge.soon()
    return None


def _key(row: Row) -> str:
    return f"comment {row['comment_id']}"


_DO: Mapping[str, Callable[[Fleet, Forge, Row, Task | None], Answer]] = {
    "help": _help,
    "status": _status,
    "retry": _retry,
    "cancel": _cancel,
    "assign": _assign,
}

"""Obeys commands in comments: each once, whoever heard of it and however often; answered by reactions and one reply."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import structlog

from app.domain import command, people, speech
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Fact, What
from app.domain.task import State, Task
from app.forgejo.payloads import Hint
from app.ports import Account, Comment, Fleet, Forge
from app.services import assign, issues
from app.store import commands, places, runs, tasks
from app.store.tables import Row

log = structlog.get_logger()
TAKEN, REFUSED = "taken", "refused"
REACTION = {TAKEN: "rocket", REFUSED: "confused"}

Answer = tuple[str, str | None]  # taken or refused, and what to reply, if anything


def hear(fleet: Fleet, forge_name: str, hint: Hint) -> None:
    """Keep the command of a comment that was just brought, if it holds one, and how far its task had come then."""
    said = hint.said
    if said is None or hint.number is None or command.read(said.text) is None:
        return
    where = (forge_name, hint.repository_id, hint.number)
    with fleet.engine.begin() as conn:
        task = tasks.of_pull(conn, *where, hint.branch or "") if hint.is_pull else tasks.of_issue(conn, *where)
    _keep(fleet, forge_name, said.comment, said.text, {
        "repository_id": hint.repository_id, "full_name": hint.full_name, "number": hint.number,
        "is_pull": hint.is_pull, "author": hint.sender.login, "may": said.may, "said_at": said.at,
        "version": task.version if task else 0,
    })  # fmt: skip


def find(fleet: Fleet, forge: Forge, repository_id: int, full_name: str, comment: Comment) -> None:
    """Keep the command of a comment that was read from the forge. One that was edited may have said something else."""
    if comment.created_at != comment.updated_at or not is_heard(fleet, forge, comment.author):
        return
    _keep(fleet, forge.name, comment.id, comment.body, {
        "repository_id": repository_id, "full_name": full_name, "number": comment.number, "is_pull": comment.is_pull,
        "author": comment.author.login, "may": None, "said_at": comment.created_at, "version": None,
    })  # fmt: skip


def is_heard(fleet: Fleet, forge: Forge, who: Account) -> bool:
    """Whether somebody is neither ourselves nor a bot that nobody invited."""
    with fleet.engine.begin() as conn:
        row = places.forge(conn, forge.name)
    return people.is_heard(who.login, who.id, who.full_name, forge.bot().id, row["bots"] if row else ())


def obey(fleet: Fleet) -> int:
    """Carry out and answer every command that is due; returns how many."""
    with fleet.engine.begin() as conn:
        waiting = commands.take(conn, fleet.clock())
    for row in waiting:
        _obey(fleet, row)
    return len(waiting)


def _keep(fleet: Fleet, forge_name: str, comment: int, text: str, values: Mapping[str, object]) -> None:
    said = command.read(text)
    if said is None:
        return
    with fleet.engine.begin() as conn:
        given = {"verb": said.verb, "argument": said.argument, **values}
        commands.keep(conn, forge_name, comment, given, fleet.clock())


def _obey(fleet: Fleet, row: Row) -> None:
    try:
        forge = fleet.forges(row["forge"])
        if row["done_at"] is None:
            forge.react(row["full_name"], row["comment_id"], "eyes")
            _carry_out(fleet, forge, row)
        _reply(fleet, forge, row)
    except Unavailable as later:
        return _later(fleet, row, str(later), later.retry_after)
    except Refused as no:  # it was carried out; nobody can be told
        return _given_up(fleet, row, str(no))
    except Exception as broken:
        log.exception("a command broke", comment=row["comment_id"])
        if row["tries"] >= commands.TRIES:
            return _given_up(fleet, row, repr(broken))
        return _later(fleet, row, repr(broken))
    with fleet.engine.begin() as conn:
        commands.answered(conn, row["id"], fleet.clock())


def _carry_out(fleet: Fleet, forge: Forge, row: Row) -> None:
    if not _may(forge, row):
        return _done(fleet, row, (REFUSED, None))
    try:
        task = _task(fleet, forge, row)
        answer = _DO[row["verb"]](fleet, forge, row, task)
    except Unavailable:
        raise
    except Refused as no:
        answer = (REFUSED, f"`/{row['verb']}` was not done:\n\n{speech.fenced(str(no))}")
    _done(fleet, row, answer)


def _may(forge: Forge, row: Row) -> bool:
    """The forge says with a comment whether its author may write. Where it did not, we ask; and where our token may not
    ask that, whether the forge would give its author issues to work on, which takes the same right."""
    if row["may"]:
        return True
    may = forge.may_write(row["full_name"], row["author"])
    return bool(forge.is_assignable(row["full_name"], row["author"]) if may is None else may)


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


def _done(fleet: Fleet, row: Row, answer: Answer) -> None:
    """A command whose effect was written down with it is done already: this changes nothing then."""
    with fleet.engine.begin() as conn:
        commands.done(conn, row["id"], fleet.clock(), *answer)


# --- the verbs -------------------------------------------------------------------------------------------


def _help(_: Fleet, __: Forge, ___: Row, ____: Task | None) -> Answer:
    return TAKEN, command.HELP


def _status(fleet: Fleet, _: Forge, __: Row, task: Task | None) -> Answer:
    known = _wanted(task)
    with fleet.engine.begin() as conn:
        run = runs.get(conn, known.id, known.run) if known.run else None
    seen = f" Last sign of life: {run['seen_at']:%Y-%m-%d %H:%M:%S} UTC." if run and run["seen_at"] else ""
    tries = f" Run {known.run}, {known.retry_count} of {known.max_retries} retries used." if known.run else ""
    return TAKEN, f"{speech.sentence(known)}{tries}{seen}"


def _retry(fleet: Fleet, forge: Forge, row: Row, task: Task | None) -> Answer:
    """Try again. If the text was edited, the new one counts from now on, also where nothing is to be tried again."""
    known = _wanted(task)
    issue = issues.edited_text(fleet, forge, row["full_name"], known)
    if issue and not issues.accept(
        fleet, forge, row["full_name"], known, issue, row["author"], _key(row), lambda note: _saw(row, note)
    ):
        return REFUSED, "The issue was edited, and the new text was only noted now. Read it, and say `/retry` again."
    refused = _record(fleet, row, known, What.RETRY, f"retry {_key(row)}")
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
    noted, said = _moment(note["detail"].get("noted_at")), _moment(row["said_at"])
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
    refused = _record(fleet, row, known, What.CANCEL, _key(row))
    if refused:
        raise refused
    return TAKEN, None


def _assign(fleet: Fleet, _: Forge, row: Row, task: Task | None) -> Answer:
    """A place is given work at most once: whoever died in the middle of it does not try again."""
    known, place = _wanted(task), row["argument"]
    with fleet.engine.begin() as conn:
        if not commands.begin(conn, row["id"], fleet.clock()):
            return REFUSED, "This was interrupted and may have been done. `/status` shows it; say it again if not."
        is_host = places.host(conn, place) is not None
    if not place:
        raise Refused(Kind.INVALID, "Say which place: `/assign HOST` or `/assign AGENT`.")
    (assign.to_host if is_host else assign.to_agent)(fleet, known.task_id, place)
    return TAKEN, None


def _wanted(task: Task | None) -> Task:
    if task is None:
        raise Refused(
            Kind.UNKNOWN, "There is no task here: put an `agent:` label on the issue, or assign it to the bot."
        )
    return task


def _record(fleet: Fleet, row: Row, task: Task, what: What, key: str) -> Refused | None:
    """The fact, and that its command is done, in one transaction: exactly once. The refusal, if it has no effect."""
    fact = Fact(what, {"by": row["author"], "comment": row["comment_id"]}, key=key)
    with fleet.engine.begin() as conn:
        if not commands.is_open(conn, row["id"]):
            return None
        try:
            tasks.record(conn, task.id, fact, fleet.clock())
        except Refused as refused:
            return refused
        commands.done(conn, row["id"], fleet.clock(), TAKEN, None)
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


# --- answering -------------------------------------------------------------------------------------------


def _reply(fleet: Fleet, forge: Forge, row: Row) -> None:
    with fleet.engine.begin() as conn:
        done = commands.get(conn, row["id"])
    if done["reply"]:
        mark = f"<!-- fleet:command={done['comment_id']} kind=reply -->"
        text = fleet.mask.text(f"**agent-fleet** · {done['reply']}")
        forge.comment_once(done["full_name"], done["number"], mark, text, None)
    forge.react(done["full_name"], done["comment_id"], REACTION[done["result"]])


def _later(fleet: Fleet, row: Row, why: str, wait: float | None = None) -> None:
    with fleet.engine.begin() as conn:
        commands.postpone(conn, row, fleet.clock(), fleet.mask.text(why), wait)


def _given_up(fleet: Fleet, row: Row, why: str) -> None:
    log.warning("a command could not be answered", comment=row["comment_id"], why=why)
    with fleet.engine.begin() as conn:
        if commands.get(conn, row["id"])["done_at"] is None:
            commands.done(conn, row["id"], fleet.clock(), REFUSED, None)
        commands.answered(conn, row["id"], fleet.clock(), fleet.mask.text(why))

"""Pays what we owe the forge: pull requests, comments, labels, receipts. Each looks first whether it was paid."""

from collections.abc import Callable
from typing import Any

import structlog

from app.domain import receipt, speech
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Debt, Fact, What
from app.domain.task import WORKING, State, Task
from app.ports import Fleet, Forge, Pull
from app.services import review
from app.store import debts, places, posts, tasks, views
from app.store.tables import Row

log = structlog.get_logger()


def settle(fleet: Fleet) -> int:
    """Pay every debt to a forge that is due; returns how many were tried."""
    with fleet.engine.begin() as conn:
        owed = debts.take(conn, PAY, fleet.clock())
    for debt in owed:
        pay(fleet, debt, PAY[Debt(debt["kind"])])
    return len(owed)


def pay(fleet: Fleet, debt: Row, how: Callable[[Fleet, Task, Row], None]) -> None:
    """Pay one debt: done, or postponed because nobody answered, or given up because the answer was no."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, debt["task_pk"])
    try:
        how(fleet, task, debt)
    except Unavailable as later:
        _pay_later(fleet, debt, str(later), later.retry_after)
    except Refused as no:
        if no.kind is Kind.UNAUTHORIZED:  # a token is being rotated
            _pay_later(fleet, debt, str(no))
        else:
            _give_up(fleet, debt, str(no))
    except (TypeError, LookupError, ValueError, AttributeError) as odd:
        log.exception("a debt could not be paid", debt=debt["kind"], task=task.task_id)
        _pay_later(fleet, debt, f"an answer nobody could read: {odd!r}")
    else:
        with fleet.engine.begin() as conn:
            debts.paid(conn, debt["id"], fleet.clock())


def open_pull(fleet: Fleet, task: Task, debt: Row) -> None:
    """Have a pull request from the task's branch, once the branch is on the forge."""
    if task.state is not State.RUNNING or task.run != debt["run"]:
        return
    forge, name, base = _repository(fleet, task)
    head = forge.branch_head(name, task.branch or "")
    if head is None:
        missing = f"The branch {task.branch} is not on the forge."
        raise Unavailable(missing) if debt["tries"] < debts.TRIES else Refused(Kind.UNKNOWN, missing)
    pull = forge.pull_for(name, task.branch or "", base)
    if pull is None or not pull.open:
        pull = _open(fleet, forge, task, name, base)
    known = {"number": pull.number, "title": pull.title, "url": pull.url, "head": head}
    review.hear(fleet, task, Fact(What.PULL_OPENED, known, run=task.run))
    fleet.nudge.soon()


def comment(fleet: Fleet, task: Task, _: Row) -> None:
    """Keep the one living status comment on the issue true."""
    if task.issue_number is None:
        return
    with fleet.engine.begin() as conn:
        told = views.event_list(conn, task.id)
    _post(fleet, task, "status", speech.status(task, told))


def label(fleet: Fleet, task: Task, _: Row) -> None:
    """Have just the status label that the task's state asks for; a label that came too late is simply the newest."""
    if task.issue_number is None:
        return
    forge, name, _base = _repository(fleet, task)
    forge.set_labels(name, task.issue_number, speech.labels(task.state), speech.OUR_LABELS)


def write_receipt(fleet: Fleet, task: Task, _: Row) -> None:
    """Store the receipt and post it on the issue. The merge is read from the forge, not believed."""
    if task.state is not State.COMPLETED:
        return
    merged = _merged(fleet, task)
    with fleet.engine.begin() as conn:
        brief, runs = views.brief(conn, task.id), views.run_list(conn, task.id)
        proof = fleet.mask.json(receipt.write(task, {**brief}, runs, merged))
        posts.keep_receipt(conn, task.id, proof, fleet.clock())
    if task.issue_number is not None:
        _post(fleet, task, "receipt", speech.receipt(proof))


PAY: dict[Debt, Callable[[Fleet, Task, Row], None]] = {
    Debt.OPEN_PULL: open_pull,
    Debt.COMMENT: comment,
    Debt.LABEL: label,
    Debt.RECEIPT: write_receipt,
}


def _pay_later(fleet: Fleet, debt: Row, why: str, wait: float | None = None) -> None:
    """An outage, however long, ends no debt: it is tried again until somebody answers."""
    with fleet.engine.begin() as conn:
        debts.postpone(conn, debt, fleet.clock(), fleet.mask.text(why), wait)


def _repository(fleet: Fleet, task: Task) -> tuple[Forge, str, str]:
    """The task's forge, and its repository's present name and default branch."""
    with fleet.engine.begin() as conn:
        row = places.repository(conn, task.forge or "", task.repository_id or 0)
    if row is None:
        raise Unavailable(f"{task.task_id}: its repository is not known yet.")
    return fleet.forges(task.forge or ""), row["full_name"], row["default_branch"]


def _open(fleet: Fleet, forge: Forge, task: Task, name: str, base: str) -> Pull:
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
        summary = next((run["summary"] for run in reversed(views.run_list(conn, task.id)) if run["summary"]), None)
    body = fleet.mask.text(speech.pull_body(task, summary))
    return forge.open_pull(name, task.branch or "", base, brief["title"], body)


def _merged(fleet: Fleet, task: Task) -> dict[str, Any] | None:
    if not task.wants_pull or task.pr_number is None:
        return None
    forge, name, _ = _repository(fleet, task)
    pull = forge.pull(name, task.pr_number)
    if pull is None or not pull.merged:
        raise Unavailable(f"{task.task_id}: pull request {task.pr_number} is not merged on the forge (yet).")
    return {
        "number": pull.number,
        "url": pull.url,
        "merge_commit": pull.merge_commit,
        "merged_by": pull.merged_by,
    }


def _post(fleet: Fleet, task: Task, kind: str, body: str) -> None:
    forge, name, _ = _repository(fleet, task)
    with fleet.engine.begin() as conn:
        known = posts.remote_id(conn, task.id, kind)
    remote = forge.comment_once(name, task.issue_number or 0, speech.marker(task, kind), fleet.mask.text(body), known)
    if remote != known:
        with fleet.engine.begin() as conn:
            posts.remember(conn, task.id, kind, remote)


def _give_up(fleet: Fleet, debt: Row, why: str) -> None:
    """A debt that was refused is given up where all can see it. Without its pull request a task cannot go on: it fails
    in the same transaction, so that no death in between leaves it running for ever."""
    told = fleet.mask.text(why)[:2000]
    with fleet.engine.begin() as conn:
        debts.give_up(conn, debt["id"], fleet.clock(), told)
        task = tasks.load(conn, debt["task_pk"])
        if debt["kind"] == Debt.OPEN_PULL and task.state in WORKING and task.run == debt["run"]:
            detail = {"reason": "pull_refused", "why": told, "transient": False}
            tasks.record(conn, task.id, Fact(What.FAILED, detail, run=task.run), fleet.clock())

"""Tells people on the forge how a task stands: comments, labels, assignee, the signed receipt."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.domain import forge_messages, receipt
from app.domain.errors import Unavailable
from app.domain.lifecycle import FactKind
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.ports import Fleet
from app.services import receipt_key
from app.services.forge import issue_text, review_rounds
from app.services.outbox.pull_requests import repository_of
from app.store import agents, fleet_config, forge_comments, views
from app.store.tables import Row


def comment(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Keep the one living status comment on the issue true."""
    if task.issue_number is None:
        return
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
        news = views.newest_event(conn, task.id, (FactKind.PULL_NEWS,))
        why = views.newest_why(conn, task.id, forge_messages.why_name(task))
        asked = views.newest_event(conn, task.id, (FactKind.CHANGES_REQUESTED,)) if task.review_count else None
    noted = _noted(brief, (asked or {}).get("detail") or {})
    _post(
        fleet,
        task,
        "status",
        forge_messages.status(task, forge_messages.PullNews.from_json(news["detail"]) if news else None, why, noted),
    )


def note(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Say once that an edit was seen and does not count yet."""
    if task.issue_number is not None and task.state is not State.COMPLETED:
        _post(fleet, task, "edited", forge_messages.edit_noted())


def answer(fleet: Fleet, task: Task, entry: OutboxEntry) -> None:
    """Give a reviewer the agent's reason for changing nothing, or ours for not asking one again."""
    with fleet.engine.begin() as conn:
        told = views.event(conn, task.id, entry.seq)
    if task.pr_number is None or told is None:
        return None
    if told["fact"] == FactKind.CHANGES_REQUESTED:
        if task.reason != "review_loop_limit":  # somebody had it begin anew meanwhile
            return None
        words = forge_messages.too_many_rounds(task, str(told["detail"].get("by") or "A reviewer"))
        return _post(fleet, task, f"limit-{entry.run}", words, task.pr_number)
    words = forge_messages.answer(entry.run, str(told["detail"].get("summary") or ""))
    return _post(fleet, task, f"answer-{entry.run}", words, task.pr_number)


def label(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Have just the status label that the task's state asks for; a label that came too late is simply the newest."""
    if task.issue_number is None:
        return
    forge, name, _base = repository_of(fleet, task)
    if task.state is State.FAILED:
        issue_text.ignore_earlier_labels(fleet, forge, name, task)
    names = _label_names(fleet, task)
    ours = frozenset(names.values()) - {""}
    forge.set_labels(name, task.issue_number, forge_messages.labels(task.state, names), ours)


def assign(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Have us among the issue's assignees, so that people see whose turn it is."""
    if task.issue_number is not None and task.live:
        forge, name, _base = repository_of(fleet, task)
        forge.assign_bot(name, task.issue_number)


def write_receipt(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Store the signed receipt and post it on the issue. The merge is read from the forge, not believed."""
    if task.state is not State.COMPLETED:
        return
    merged = _merged(fleet, task)
    with fleet.engine.begin() as conn:
        brief, ours, told = views.brief(conn, task.id), views.run_list(conn, task.id), views.event_list(conn, task.id)
        runs = [{**run, "cli_version": run["cli_version"] or _registered(conn, run)} for run in ours]
    body = fleet.mask.json(receipt.write(task, {**brief}, runs, merged, told, fleet.instance()))
    proof = receipt_key.sign(fleet, body)
    with fleet.engine.begin() as conn:
        forge_comments.save_receipt(conn, task.id, proof, fleet.clock())
    if task.issue_number is not None:
        _post(fleet, task, "receipt", forge_messages.receipt(proof, proof["signature"]["key"]))


def _registered(conn: Connection, run: Mapping[str, Any]) -> str | None:
    """The version of its CLI that an agent registered with: `metadata.clis` by the kind of CLI."""
    agent = agents.get(conn, run["agent_id"]) if run["agent_id"] else None
    return agent.cli_version(run["cli"]) if agent else None


def _noted(brief: Row, review: Mapping[str, Any]) -> list[str]:
    """What no reader of the issue and of the newest review can see, and the agent was not told either; and what is
    wrong with the repository's `.fleet.toml`."""
    hidden = (("the text", brief["prompt"].get("hidden")), ("the newest review", review.get("hidden")))
    left_out = [f"{', '.join(those)} in {where} were left out of the prompt" for where, those in hidden if those]
    return left_out + list((brief["settings"] or {}).get("faults") or ())


def _label_names(fleet: Fleet, task: Task) -> Mapping[str, str]:
    with fleet.engine.begin() as conn:
        row = fleet_config.forge(conn, task.forge or "")
    return {**forge_messages.OUR_LABELS, **(row.labels if row else {})}


def _merged(fleet: Fleet, task: Task) -> dict[str, Any] | None:
    if not task.wants_pull or task.pr_number is None:
        return None
    forge, name, _ = repository_of(fleet, task)
    pull = forge.pull(name, task.pr_number)
    if pull is None or not pull.merged:
        raise Unavailable(f"{task.task_id}: pull request {task.pr_number} is not merged on the forge (yet).")
    said = review_rounds.with_permissions(forge, name, forge.reviews(name, task.pr_number))
    approved = sorted({one.author.login for one in said if one.state == "APPROVED" and one.official})
    return {
        "number": pull.number,
        "url": pull.url,
        "merge_commit": pull.merge_commit,
        "merged_by": pull.merged_by,
        "approved_by": approved,
    }


def _post(fleet: Fleet, task: Task, kind: str, body: str, number: int | None = None) -> None:
    forge, name, _ = repository_of(fleet, task)
    with fleet.engine.begin() as conn:
        known = forge_comments.comment_id(conn, task.id, kind)
    where, mark = number or task.issue_number or 0, forge_messages.marker(task, kind)
    remote = forge.write_comment(name, where, mark, fleet.mask.text(body), known)
    if remote != known:
        with fleet.engine.begin() as conn:
            forge_comments.save_comment_id(conn, task.id, kind, remote)

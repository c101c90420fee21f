"""Writes the signed receipt of a completed task, and posts it on the issue."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.domain import forge_messages, receipt
from app.domain.errors import Unavailable
from app.domain.outbox import OutboxEntry
from app.domain.task import State, Task
from app.ports import Fleet
from app.services import receipt_key
from app.services.forge import review_rounds
from app.services.outbox.comments import write_comment
from app.services.outbox.target import target_of
from app.store import agents, events, forge_comments, task_details, views


def write_receipt(fleet: Fleet, task: Task, _: OutboxEntry) -> None:
    """Store the signed receipt and post it on the issue. Raises Unavailable until the forge itself shows the merge."""
    if task.state is not State.COMPLETED:
        return
    merged = _merged_pull(fleet, task)
    with fleet.engine.begin() as conn:
        details = task_details.get(conn, task.id)
        history = [views.event_json(event) for event in events.of_task(conn, task.id)]
        runs = [
            receipt.prove_run(run, run["cli_version"] or _registered_version(conn, run))
            for run in views.run_list(conn, task.id)
        ]
    body: receipt.Receipt = fleet.mask.json(receipt.write(task, details, runs, merged, history, fleet.instance()))
    proof = receipt_key.sign(fleet, body)
    with fleet.engine.begin() as conn:
        forge_comments.save_receipt(conn, task.id, proof, fleet.clock())
    if task.issue_number is not None:
        write_comment(fleet, task, "receipt", forge_messages.receipt(proof, proof["signature"]["key"]))


def _merged_pull(fleet: Fleet, task: Task) -> receipt.MergedPull | None:
    """The merged pull request as the receipt shows it; None for a task without one."""
    if not task.wants_pull or task.pr_number is None:
        return None
    to = target_of(fleet, task)
    pull = to.forge.pull(to.name, task.pr_number)
    if pull is None or not pull.merged:
        raise Unavailable(f"{task.task_id}: pull request {task.pr_number} is not merged on the forge (yet).")
    reviews = review_rounds.with_permissions(to.forge, to.name, to.forge.reviews(to.name, task.pr_number))
    approved = sorted({one.author.login for one in reviews if one.state == "APPROVED" and one.official})
    return {
        "number": pull.number,
        "url": pull.url,
        "merge_commit": pull.merge_commit,
        "merged_by": pull.merged_by,
        "approved_by": approved,
    }


def _registered_version(conn: Connection, run: Mapping[str, Any]) -> str | None:
    """The version of the run's CLI with which its agent registered."""
    agent = agents.get(conn, run["agent_id"]) if run["agent_id"] else None
    return agent.cli_version(run["cli"]) if agent else None

"""Endpoints of tasks: create, list, show, retry, cancel, assign; and of agents: dequeue, report, complete."""

import base64
import binascii
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from app.api import agents, loaded, requests, responses
from app.api.auth import Role, allow, allow_checked_by_view, caller, check_is_caller, fleet
from app.api.errors import answer
from app.api.openapi import answers, arguments, response
from app.domain.agent_report import AgentReceipt, LogUpload, StatusReport
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import FactKind
from app.domain.run import Run
from app.domain.task import LIVE
from app.services import operator
from app.services.agents import leases, reports
from app.services.create_task import TaskRequest
from app.services.create_task import request as request_task
from app.services.dispatch import placement
from app.store import logs, runs, tasks, views
from app.store.engine import reading_connection

blueprint = Blueprint("tasks", __name__)
receipts = Blueprint("receipts", __name__)
ANYONE = (Role.VIEWER, Role.OPERATOR, Role.AGENT)
PIECE = 1 << 20
ONE_OR_MORE = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Work", "Batch")]}


@blueprint.get("")
@answers(200, responses.Task(many=True))
@allow(*ANYONE)
@arguments(requests.TaskFilter, location="query")
def list_tasks(filters: loaded.TaskFilter) -> Response:
    """List tasks, newest first. The header `Link` has the next page, `X-Total-Count` the number of all. An agent sees
    its own."""
    limit, after = filters["limit"], filters.get("after")
    wanted = {name: str(value) for name, value in filters.items() if name not in ("limit", "after")}
    with reading_connection(fleet().engine) as conn:
        own = {"agent_id": caller().agent_id} if caller().role is Role.AGENT else {}
        found, total = views.task_list(conn, wanted | own, limit, after)
    page = jsonify(found)
    page.headers["X-Total-Count"] = str(total)
    if len(found) == limit:
        rest = "".join(f"&{name}={quote(value)}" for name, value in wanted.items())
        here = f"{request.base_url}?limit={limit}&after={quote(found[-1]['task_id'], safe='')}{rest}"
        page.headers["Link"] = f'<{here}>; rel="next"'
    return page


@blueprint.post("")
@answers(201, responses.WholeTask)
@allow(Role.OPERATOR)
@arguments(requests.NewTask)
def create_task(given: TaskRequest) -> tuple[Response, int]:
    """Create a task without an issue."""
    return _show(request_task(fleet(), given).task_id), 201


@blueprint.post("/dequeue")
@answers(
    200, ONE_OR_MORE, "unknown", "busy", more={204: response(None, "No task matches")},
    description="The task; `tasks` if `max_tasks` is more than one",
)  # fmt: skip
@allow_checked_by_view(Role.AGENT)
@arguments(requests.Dequeue)
def dequeue(given: loaded.Dequeue) -> Response:
    """Take tasks: the highest priority first, then the oldest. Waits up to `wait_secs` for one."""
    return agents.dequeue(given)


@blueprint.get("/<path:task_id>/log")
@answers(200, responses.LogRead, "unknown")
@allow(*ANYONE)
@arguments(requests.LogQuery, location="query")
def read_log(wanted: loaded.LogQuery, task_id: str) -> Response:
    """Read a piece of a run's log, in base64; continue at `next_offset`. If `offset` is greater than requested, the
    bytes between were dropped from a log that was too long."""
    with reading_connection(fleet().engine) as conn:
        task = tasks.find(conn, task_id)
        run = runs.get(conn, task.id, wanted["run"] or task.run)
        _check_may_read(task_id, run)
        if run is None:
            raise Refused(Kind.UNKNOWN, f"{task_id} has no run {wanted['run'] or task.run}.")
        piece = logs.piece(conn, run.id, wanted["stream"], wanted["offset"], PIECE)
    here = {"run": run.number, "stream": wanted["stream"], "offset": piece.offset}
    return jsonify(here | {"data": base64.b64encode(piece.data).decode(), "next_offset": piece.end})


@blueprint.get("/<path:task_id>")
@answers(200, responses.WholeTask, "unknown")
@allow(*ANYONE)
@arguments(requests.TaskQuery, location="query")
def get_task(query: loaded.TaskQuery, task_id: str) -> Response:
    """Show one task with its events and runs."""
    _check_may_see(task_id)
    return _show(task_id, with_events=query["events"])


@blueprint.post("/<path:task_id>/retry")
@answers(200, responses.WholeTask, "unknown")
@allow(Role.OPERATOR)
def retry_task(task_id: str) -> Response:
    """Retry a task that failed, was lost, was cancelled or is parked."""
    operator.request(fleet(), task_id, FactKind.RETRY)
    return _show(task_id)


@blueprint.post("/<path:task_id>/cancel")
@answers(200, responses.WholeTask, "unknown")
@allow(Role.OPERATOR)
def cancel_task(task_id: str) -> Response:
    """Cancel a task and stop its run."""
    operator.request(fleet(), task_id, FactKind.CANCEL)
    return _show(task_id)


@blueprint.post("/<path:task_id>/assign")
@answers(200, responses.WholeTask, "unknown")
@allow(Role.OPERATOR)
@arguments(requests.Assignment)
def assign_task(given: loaded.Assignment, task_id: str) -> Response:
    """Assign a waiting task to an agent or a host."""
    if given["agent_id"]:
        placement.give_to_agent(fleet(), task_id, given["agent_id"])
    elif given["host"]:
        placement.place_on_host(fleet(), task_id, given["host"])
    return _show(task_id)


@blueprint.post("/<path:task_id>/status")
@answers(200, responses.Reported, "unknown", "stale")
@allow(Role.AGENT)
@arguments(requests.Report)
def report_status(given: loaded.Report, task_id: str) -> Response:
    """Confirm a task, report its progress, or give it up. If `stop` is true, the agent must stop working on it."""
    apply = reports.running if given["status"] == "running" else reports.failed
    told = StatusReport(task_id, given["lease"], given["message"], given["progress"])
    return _respond(apply(fleet(), check_is_caller(given["agent_id"]), told))


@blueprint.post("/<path:task_id>/log")
@answers(200, responses.LogKept, "unknown", "stale")
@allow(Role.AGENT)
@arguments(requests.LogPiece)
def write_log(given: loaded.LogPiece, task_id: str) -> Response:
    """Append a piece to a run's log. Bytes that are stored already are skipped; a gap is refused."""
    piece = LogUpload(task_id, given["lease"], given["stream"], given["offset"], _decode(given["data"]))
    wanted, is_gap = reports.log(fleet(), caller().agent_id or "", piece)
    if not is_gap:
        return jsonify(next_offset=wanted)
    return answer(Kind.STALE, f"There is a gap: send the bytes from {wanted} first.", next_offset=wanted)


@blueprint.post("/<path:task_id>/complete")
@answers(200, responses.Reported, "unknown", "stale")
@allow(Role.AGENT)
@arguments(requests.Receipt)
def complete_task(given: loaded.Receipt, task_id: str) -> Response:
    """Complete a task with a receipt. Its claims are checked on the forge; the same receipt may be sent again."""
    if given.get("task_id", task_id) != task_id:
        raise Refused(Kind.INVALID, f"task_id: the receipt is for {given['task_id']!r}, the address for {task_id!r}.")
    return _complete(AgentReceipt.from_json(given, task_id), given["agent_id"])


@receipts.post("")
@answers(200, responses.Reported, "unknown", "stale")
@allow(Role.AGENT)
@arguments(requests.Receipt)
def post_receipt(given: loaded.Receipt) -> Response:
    """Complete a task, with the task's id in the body."""
    if "task_id" not in given:
        raise Refused(Kind.INVALID, "task_id: Missing data for required field.")
    return _complete(AgentReceipt.from_json(given, given["task_id"]), given["agent_id"])


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Kind.INVALID, "data: Must be base64.") from None


def _check_may_see(task_id: str) -> None:
    """An agent sees its tasks, and those it had until another agent or host has them."""
    if caller().role is Role.AGENT:
        with reading_connection(fleet().engine) as conn:
            if tasks.find(conn, task_id).agent_id != caller().agent_id:
                raise Refused(Kind.FORBIDDEN, f"{task_id} is not a task of agent {caller().agent_id!r}.")


def _check_may_read(task_id: str, run: Run | None) -> None:
    """An agent reads the logs of its own runs, even if another agent or host has the task now."""
    if caller().role is Role.AGENT and (run is None or run.agent_id != caller().agent_id):
        raise Refused(Kind.FORBIDDEN, f"{task_id}: this is not a run of agent {caller().agent_id!r}.")


def _complete(receipt: AgentReceipt, agent_id: str) -> Response:
    held = reports.complete(fleet(), check_is_caller(agent_id), receipt)
    return _respond(held, reports.notice(fleet(), held))


def _respond(held: leases.Held, notice: str | None = None) -> Response:
    """The task after a report, and whether its agent must stop: the run or the task has ended."""
    number = held.run.number
    with reading_connection(fleet().engine) as conn:
        found = _task(conn, held.task.task_id, with_events=False)
        has_ended = any(run["ended_at"] for run in found["runs"] if run["number"] == number)
        stop = has_ended or found["status"] not in LIVE
        asked = not stop and found["pr_number"] is not None
        feedback = leases.feedback(conn, leases.held(conn, held.task.id, number)) if asked else None
    news = {"feedback": feedback, "notice": notice}
    return jsonify(found | {"lease": number, "stop": stop} | {name: value for name, value in news.items() if value})


def _show(task_id: str, with_events: bool = True) -> Response:
    with reading_connection(fleet().engine) as conn:
        return jsonify(_task(conn, task_id, with_events))


def _task(conn: Connection, task_id: str, with_events: bool) -> dict[str, Any]:
    found = views.task(conn, task_id, with_events)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no task {task_id!r}.")
    return found

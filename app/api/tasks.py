"""Tasks: operators list, make, retry, cancel and assign them; agents ask for one, say how far they are, finish it."""

import base64
import binascii
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from app.api import agents, requests, responses
from app.api.auth import Role, as_agent, caller, else_only, fleet, only
from app.api.errors import answer
from app.api.openapi import answers, arguments, response
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import FactKind
from app.domain.task import LIVE
from app.services import operator
from app.services.agents import leases, reports
from app.services.create_task import request as request_task
from app.services.dispatch import placement
from app.store import logs, runs, tasks, views
from app.store.engine import reading
from app.store.tables import Row

blueprint = Blueprint("tasks", __name__)
receipts = Blueprint("receipts", __name__)
ANYONE = (Role.VIEWER, Role.OPERATOR, Role.AGENT)
PIECE = 1 << 20
ONE_OR_MORE = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Work", "Batch")]}


@blueprint.get("")
@answers(200, responses.Task(many=True))
@only(*ANYONE)
@arguments(requests.TaskFilter, location="query")
def list_tasks(asked: dict[str, Any]) -> Response:
    """Tasks, newest first; `Link` leads to the next page, `X-Total-Count` says how many there are. An agent sees its
    own."""
    limit, after = asked.pop("limit"), asked.pop("after", None)
    with reading(fleet().engine) as conn:
        own = {"agent_id": caller().agent_id} if caller().role is Role.AGENT else {}
        found, total = views.task_list(conn, asked | own, limit, after)
    page = jsonify(found)
    page.headers["X-Total-Count"] = str(total)
    if len(found) == limit:
        rest = "".join(f"&{name}={quote(str(value))}" for name, value in asked.items())
        here = f"{request.base_url}?limit={limit}&after={quote(found[-1]['task_id'], safe='')}{rest}"
        page.headers["Link"] = f'<{here}>; rel="next"'
    return page


@blueprint.post("")
@answers(201, responses.WholeTask)
@only(Role.OPERATOR)
@arguments(requests.NewTask)
def create_task(asked: dict[str, Any]) -> tuple[Response, int]:
    """Ask for work without an issue."""
    return _shown(request_task(fleet(), asked).task_id), 201


@blueprint.post("/dequeue")
@answers(
    200, ONE_OR_MORE, "unknown", "busy", more={204: response(None, "Nothing to do")},
    description="The task; `tasks` where more than one was asked for",
)  # fmt: skip
@else_only(Role.AGENT)
@arguments(requests.Dequeue)
def dequeue(given: dict[str, Any]) -> Response:
    """Ask for work: the highest priority first, then the oldest. Waits up to `wait_secs` for some to come."""
    return agents.dequeue(given)


@blueprint.get("/<path:task_id>/log")
@answers(200, responses.LogRead, "unknown")
@only(*ANYONE)
@arguments(requests.LogWanted, location="query")
def read_log(asked: dict[str, Any], task_id: str) -> Response:
    """A piece of what a run printed, base64; `next_offset` is where to go on. Where `offset` is greater than asked, the
    bytes between were left out of a log that was too long."""
    with reading(fleet().engine) as conn:
        task = tasks.find(conn, task_id)
        run = runs.get(conn, task.id, asked["run"] or task.run)
        _may_read(task_id, run)
        if run is None:
            raise Refused(Kind.UNKNOWN, f"{task_id} has no run {asked['run'] or task.run}.")
        piece = logs.piece(conn, run["id"], asked["stream"], asked["offset"], PIECE)
    here = {"run": run["number"], "stream": asked["stream"], "offset": piece.offset}
    return jsonify(here | {"data": base64.b64encode(piece.data).decode(), "next_offset": piece.end})


@blueprint.get("/<path:task_id>")
@answers(200, responses.WholeTask, "unknown")
@only(*ANYONE)
@arguments(requests.Detail, location="query")
def get_task(asked: dict[str, Any], task_id: str) -> Response:
    """One task with its events and runs."""
    _may_see(task_id)
    return _shown(task_id, with_events=asked["events"])


@blueprint.post("/<path:task_id>/retry")
@answers(200, responses.WholeTask, "unknown")
@only(Role.OPERATOR)
def retry_task(task_id: str) -> Response:
    """Try a task again that failed, was lost, was cancelled or is parked."""
    operator.request(fleet(), task_id, FactKind.RETRY)
    return _shown(task_id)


@blueprint.post("/<path:task_id>/cancel")
@answers(200, responses.WholeTask, "unknown")
@only(Role.OPERATOR)
def cancel_task(task_id: str) -> Response:
    """Cancel a task; what still runs is stopped."""
    operator.request(fleet(), task_id, FactKind.CANCEL)
    return _shown(task_id)


@blueprint.post("/<path:task_id>/assign")
@answers(200, responses.WholeTask, "unknown")
@only(Role.OPERATOR)
@arguments(requests.Assignment)
def assign_task(given: dict[str, Any], task_id: str) -> Response:
    """Give a waiting task to a place of your choice."""
    if given["agent_id"]:
        placement.to_agent(fleet(), task_id, given["agent_id"])
    else:
        placement.to_host(fleet(), task_id, given["host"])
    return _shown(task_id)


@blueprint.post("/<path:task_id>/status")
@answers(200, responses.Reported, "unknown", "stale")
@only(Role.AGENT)
@arguments(requests.Report)
def report_status(given: dict[str, Any], task_id: str) -> Response:
    """Confirm a task, say how far it is, or give it up. `stop` says whether the agent shall leave it alone."""
    how = reports.running if given["status"] == "running" else reports.failed
    return _told(how(fleet(), as_agent(given["agent_id"]), given | {"task_id": task_id}))


@blueprint.post("/<path:task_id>/log")
@answers(200, responses.LogKept, "unknown", "stale")
@only(Role.AGENT)
@arguments(requests.LogPiece)
def write_log(given: dict[str, Any], task_id: str) -> Response:
    """Keep a piece of a run's output. What is known already is trimmed; a gap is refused."""
    piece = given | {"task_id": task_id, "data": _bytes(given["data"])}
    wanted, is_gap = reports.log(fleet(), caller().agent_id or "", piece)
    if not is_gap:
        return jsonify(next_offset=wanted)
    return answer(Kind.STALE, f"There is a gap: send the bytes from {wanted} first.", next_offset=wanted)


@blueprint.post("/<path:task_id>/complete")
@answers(200, responses.Reported, "unknown", "stale")
@only(Role.AGENT)
@arguments(requests.Receipt)
def complete_task(given: dict[str, Any], task_id: str) -> Response:
    """End the work with a receipt. Its claims are checked on the forge; the same receipt twice is fine."""
    if given.get("task_id", task_id) != task_id:
        raise Refused(Kind.INVALID, f"task_id: the receipt is for {given['task_id']!r}, the address for {task_id!r}.")
    return _ended(reports.complete(fleet(), as_agent(given["agent_id"]), given | {"task_id": task_id}))


@receipts.post("")
@answers(200, responses.Reported, "unknown", "stale")
@only(Role.AGENT)
@arguments(requests.Receipt)
def post_receipt(given: dict[str, Any]) -> Response:
    """The same as to complete a task, with the task's id in the body."""
    if "task_id" not in given:
        raise Refused(Kind.INVALID, "task_id: Missing data for required field.")
    return _ended(reports.complete(fleet(), as_agent(given["agent_id"]), given))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Kind.INVALID, "data: Must be base64.") from None


def _may_see(task_id: str) -> None:
    """An agent sees what it has, and what it had as long as nobody else has it."""
    if caller().role is Role.AGENT:
        with reading(fleet().engine) as conn:
            if tasks.find(conn, task_id).agent_id != caller().agent_id:
                raise Refused(Kind.FORBIDDEN, f"{task_id} is not a task of agent {caller().agent_id!r}.")


def _may_read(task_id: str, run: Row | None) -> None:
    """What a run printed is for its agent and for operators, also when the task went on to another."""
    if caller().role is Role.AGENT and (run is None or run["agent_id"] != caller().agent_id):
        raise Refused(Kind.FORBIDDEN, f"{task_id}: that is not a run of agent {caller().agent_id!r}.")


def _ended(held: leases.Held) -> Response:
    notice = reports.notice(fleet(), held)
    return _told(held, {"notice": notice} if notice else {})


def _told(held: leases.Held, more: dict[str, Any] | None = None) -> Response:
    """The task as it is now, and whether its agent shall leave it alone: it is held no longer, or goes on."""
    number = held.run["number"]
    with reading(fleet().engine) as conn:
        found = _task(conn, held.task.task_id, with_events=False)
        has_ended = any(run["ended_at"] for run in found["runs"] if run["number"] == number)
        stop = has_ended or found["status"] not in LIVE
        asked = not stop and found["pr_number"] is not None
        news = leases.feedback(conn, leases.held(conn, held.task.id, number)) if asked else {}
    return jsonify(found | {"lease": number, "stop": stop} | news | (more or {}))


def _shown(task_id: str, with_events: bool = True) -> Response:
    with reading(fleet().engine) as conn:
        return jsonify(_task(conn, task_id, with_events))


def _task(conn: Connection, task_id: str, with_events: bool) -> dict[str, Any]:
    found = views.task(conn, task_id, with_events)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no task {task_id!r}.")
    return found

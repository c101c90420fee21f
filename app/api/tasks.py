"""Tasks for operators: list, look, make, retry, cancel."""

from typing import Any
from urllib.parse import quote

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from app.api.doors import fleet, operators_only
from app.api.schemas import Detail, NewTask, TaskFilter
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import What
from app.services import ask, intake
from app.store import views

blueprint = Blueprint("tasks", __name__, description="What is wanted, and how far it has come")
blueprint.before_request(operators_only)


@blueprint.get("")
@blueprint.arguments(TaskFilter, location="query")
def list_tasks(asked: dict[str, Any]) -> Response:
    """Tasks, newest first; `Link` leads to the next page, `X-Total-Count` says how many there are."""
    limit, after = asked.pop("limit"), asked.pop("after", None)
    with fleet().engine.begin() as conn:
        found, total = views.task_list(conn, asked, limit, after)
    response = jsonify(found)
    response.headers["X-Total-Count"] = str(total)
    if len(found) == limit:
        rest = "".join(f"&{name}={quote(str(value))}" for name, value in asked.items())
        here = f"{request.base_url}?limit={limit}&after={quote(found[-1]['task_id'], safe='')}{rest}"
        response.headers["Link"] = f'<{here}>; rel="next"'
    return response


@blueprint.post("")
@blueprint.arguments(NewTask)
def create_task(asked: dict[str, Any]) -> tuple[Response, int]:
    """Ask for work without an issue."""
    return _shown(intake.request(fleet(), asked).task_id), 201


@blueprint.get("/<path:task_id>")
@blueprint.arguments(Detail, location="query")
def get_task(asked: dict[str, Any], task_id: str) -> Response:
    """One task with its events and runs."""
    return _shown(task_id, with_events=asked["events"])


@blueprint.post("/<path:task_id>/retry")
def retry_task(task_id: str) -> Response:
    """Try a task again that failed, was lost, was cancelled or is parked."""
    ask.about(fleet(), task_id, What.RETRY)
    return _shown(task_id)


@blueprint.post("/<path:task_id>/cancel")
def cancel_task(task_id: str) -> Response:
    """Cancel a task; what still runs is stopped."""
    ask.about(fleet(), task_id, What.CANCEL)
    return _shown(task_id)


def _shown(task_id: str, with_events: bool = True) -> Response:
    with fleet().engine.begin() as conn:
        found = views.task(conn, task_id, with_events)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no task {task_id!r}.")
    return jsonify(found)

"""Endpoints that describe themselves: what a view takes and answers stands beside it, and in the OpenAPI document."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import flask_smorest
import flask_smorest.blueprint
import flask_smorest.response
from apispec import APISpec
from flask import Request
from marshmallow import missing
from webargs.flaskparser import FlaskParser

from app.api import json_body, responses
from app.api.errors import STATUS

_DESCRIBING = (flask_smorest.response.__file__, flask_smorest.blueprint.__file__)
V = TypeVar("V", bound=Callable[..., Any])
USUAL = ("invalid", "unauthorized", "forbidden", "too_large", "broken", "unavailable")


class _Parser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = STATUS["invalid"]

    def _raw_load_json(self, req: Request) -> Any:
        found = json_body.read(req)
        return missing if found is None else found


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A group of endpoints."""

    ARGUMENTS_PARSER = _Parser()

    def answers(self, status: int, schema: Any, *errors: str, **more: Any) -> Callable[[V], V]:
        """Document what a view answers when all is well, and the kinds of error it may give beside the usual ones."""

        def documented(view: V) -> V:
            for kind in (*USUAL, *errors):
                view = self.alt_response(STATUS[kind], schema=responses.Error, description=kind)(view)
            named = self.doc(operationId=view.__name__, **_links(view.__name__, status))(view)
            return _bare(self.response(status, schema, **more)(named))  # type: ignore[no-any-return]

        return documented

    def arguments(self, schema: Any, **more: Any) -> Callable[[V], V]:
        """What a view takes. The schema is made once, not for each request."""
        made = schema() if isinstance(schema, type) else schema
        return super().arguments(made, **more)  # type: ignore[no-any-return]


def _bare(described: Any) -> Any:
    """The view below the descriptions that were laid around it: they say what it answers, and our views give whole
    responses themselves, so that a dozen calls that pass through are spared to each request."""
    view = described
    while getattr(view, "__wrapped__", None) is not None and view.__code__.co_filename in _DESCRIBING:
        view = view.__wrapped__

    @wraps(view)
    def bare(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    bare._apidoc = described._apidoc  # type: ignore[attr-defined]
    return bare


class Api(flask_smorest.Api):  # type: ignore[misc]
    """The whole API, whose errors have one shape."""

    ERROR_SCHEMA = None


def document(spec: APISpec, base: str) -> dict[str, Any]:
    """The whole document, with the forge's door, which takes a raw delivery and no schema. What the library adds of its
    own, an answer 'by default' of no shape, says nothing."""
    found: dict[str, Any] = spec.to_dict()
    found["components"].pop("responses", None)
    for call in (call for path in found["paths"].values() for name, call in path.items() if name != "parameters"):
        call["responses"].pop("default", None)
    found["paths"] |= {f"{base}/webhooks/forgejo": {"post": WEBHOOK}}
    found["tags"] = [*found.get("tags", []), {"name": "webhooks", "description": "Open to whoever signs"}]
    return found


# Where one answer leads: the calls that take the id of the task that it shows, and with it the lease.
_BY_ID = ("get_task", "cancel_task", "retry_task", "assign_task", "read_log")
_BY_LEASE = ("report_status", "write_log", "complete_task")
_FROM = {"create_task": _BY_ID, "get_task": _BY_ID, "dequeue": (*_BY_ID, *_BY_LEASE), "report_status": _BY_LEASE}


def _links(name: str, status: int) -> dict[str, Any]:
    found = {}
    for to in _FROM.get(name, ()):
        found[to] = {"operationId": to, "parameters": {"task_id": "$response.body#/task_id"}}
        if to in _BY_LEASE:
            found[to]["requestBody"] = {"lease": "$response.body#/lease", "agent_id": "$request.body#/agent_id"}
    return {"responses": {str(status): {"links": found}}} if found else {}


def _of(name: str, description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


WEBHOOK = {
    "tags": ["webhooks"],
    "summary": "Take in a delivery of the forge",
    "operationId": "receive_delivery",
    "security": [],
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "responses": {
        "202": _of("Delivery", "Stored"),
        **{str(STATUS[kind]): _of("Error", kind) for kind in ("unauthorized", "too_large", "unavailable")},
    },
}

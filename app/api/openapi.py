"""Describes endpoints beside their views, checks requests against it, and makes the OpenAPI document of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from inspect import getdoc
from typing import Any, NotRequired, TypedDict, TypeVar

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Flask, Request
from marshmallow import Schema, missing
from webargs.flaskparser import FlaskParser
from werkzeug.routing import Rule

from app.api import json_body, responses
from app.api.errors import STATUS

COMMON_ERRORS = ("invalid", "unauthorized", "forbidden", "too_large", "broken", "unavailable")
Shape = Schema | type[Schema] | Mapping[str, Any]  # a marshmallow schema, or JSON Schema
V = TypeVar("V", bound=Callable[..., Any])


class Content(TypedDict):
    """A body of one content type."""

    schema: Shape


class Body(TypedDict):
    """The body of a request."""

    required: NotRequired[bool]
    content: Mapping[str, Content]


class Link(TypedDict):
    """An endpoint that takes what this response returns. The values are runtime expressions of OpenAPI."""

    operationId: str
    parameters: dict[str, str]
    requestBody: NotRequired[dict[str, str]]


class Answer(TypedDict):
    """A response. `links` are by their names."""

    description: NotRequired[str]
    content: NotRequired[Mapping[str, Content]]
    links: NotRequired[Mapping[str, Link]]


class Operation(TypedDict, total=False):
    """An endpoint with its method, as OpenAPI describes it. `responses` are by status."""

    tags: Sequence[str]
    summary: str | None
    operationId: str
    security: Sequence[Mapping[str, Sequence[str]]]
    parameters: Sequence[Mapping[str, object]]
    requestBody: Body
    responses: Mapping[int, Answer]


class _Parser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = STATUS["invalid"]

    def _raw_load_json(self, req: Request) -> Any:
        found = json_body.read(req)
        return missing if found is None else found


_parser = _Parser()


def arguments(schema: type[Schema], location: str = "json") -> Callable[[V], V]:
    """Pass the checked body (or query) to the view as its first argument. Aborts with 400 if it does not fit."""
    made = schema()
    body: Operation = {"requestBody": {"required": True, "content": {"application/json": {"schema": made}}}}
    query: Operation = {"parameters": [{"in": location, "schema": made}]}
    described = body if location == "json" else query

    def decorate(view: V) -> V:
        parsing: V = _parser.use_args(made, location=location)(view)  # type: ignore[assignment]
        return _describe(parsing, described)

    return decorate


def answers(
    status: int, shape: Shape, *errors: str, description: str = "", more: Mapping[int, Answer] | None = None
) -> Callable[[V], V]:
    """Document what a view returns on success, `more` responses by status, and its errors beside the common ones."""
    documented = {status: response(shape, description or HTTPStatus(status).phrase)} | dict(more or {})
    documented |= {STATUS[kind]: response(responses.Error, kind) for kind in (*COMMON_ERRORS, *errors)}
    return lambda view: _describe(view, {"responses": documented | _links(view.__name__, status)})


def open_answers(documented: Mapping[int, Answer]) -> Callable[[V], V]:
    """Document every response, by status, of a view that takes no token."""
    return lambda view: _describe(view, {"security": [], "responses": documented})


def response(shape: Shape | None, description: str = "OK", content_type: str = "application/json") -> Answer:
    """A response as the document has it; None: it has no body."""
    if shape is None:
        return {"description": description}
    return {"description": description, "content": {content_type: {"schema": shape}}}


def _describe(view: V, more: Operation) -> V:
    view.operation = getattr(view, "operation", {}) | more  # type: ignore[attr-defined]
    return view


def document(app: Flask, base: str, blueprints: Mapping[Blueprint, str]) -> dict[str, Any]:
    """The OpenAPI document of these blueprints, each with its description, and of the webhooks."""
    spec = APISpec("agent-fleet", "v1", "3.1.0", plugins=[MarshmallowPlugin()], security=[{"token": []}])
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    for blueprint, description in blueprints.items():
        spec.tag({"name": blueprint.name, "description": description})
        for rule in app.url_map.iter_rules():
            if rule.endpoint.startswith(f"{blueprint.name}."):
                _add_path(spec, rule, app.view_functions[rule.endpoint], blueprint.name)
    for shape in (responses.Delivery, responses.Work, responses.Batch):
        spec.components.schema(shape.__name__, schema=shape)
    spec.path(f"{base}/webhooks/forgejo", operations={"post": WEBHOOK})
    spec.tag({"name": "webhooks", "description": "Deliveries of the forge, authenticated by signature"})
    return dict(spec.to_dict())


def _add_path(spec: APISpec, rule: Rule, view: Any, tag: str) -> None:
    described = {"tags": [tag], "summary": getdoc(view), "operationId": view.__name__, **view.operation}
    path = [{"in": "path", "name": name, "required": True, "schema": {"type": "string"}} for name in rule.arguments]
    method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"})).lower()
    spec.path(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), operations={method: described}, parameters=path)


# The calls that take the id of the task that another call returns, and those that take its lease as well.
_BY_ID = ("get_task", "cancel_task", "retry_task", "assign_task", "read_log")
_BY_LEASE = ("report_status", "write_log", "complete_task")
_FROM = {"create_task": _BY_ID, "get_task": _BY_ID, "dequeue": (*_BY_ID, *_BY_LEASE), "report_status": _BY_LEASE}


def _links(name: str, status: int) -> dict[int, Answer]:
    found: dict[str, Link] = {}
    for to in _FROM.get(name, ()):
        found[to] = {"operationId": to, "parameters": {"task_id": "$response.body#/task_id"}}
        if to in _BY_LEASE:
            found[to]["requestBody"] = {"lease": "$response.body#/lease", "agent_id": "$request.body#/agent_id"}
    return {status: {"links": found}} if found else {}


WEBHOOK: Operation = {
    "tags": ["webhooks"],
    "summary": "Store a delivery of the forge.",
    "operationId": "receive_delivery",
    "security": [],
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "responses": {
        202: response(responses.Delivery, "Stored"),
        **{STATUS[kind]: response(responses.Error, kind) for kind in ("unauthorized", "too_large", "unavailable")},
    },
}

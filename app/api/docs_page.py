"""Serves the OpenAPI document and a page that shows it. Every token may read them; a browser asks for one."""

from typing import Any

from flask import Blueprint, Response, current_app, jsonify, make_response, render_template

from app.api.auth import Role, authenticate, basic_password, bearer_token
from app.api.errors import answer
from app.domain.errors import Kind, Refused

blueprint = Blueprint("reference", __name__, template_folder="templates")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


@blueprint.before_request
def _with_a_token() -> Response | None:
    try:
        authenticate(*Role, by=bearer_token() or basic_password())
    except Refused as refused:
        response = answer(refused.kind, str(refused))
        if refused.kind is Kind.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Basic realm="agent-fleet: a token as password", charset="UTF-8"'
        return response
    return None


@blueprint.get("/openapi.json")
def openapi() -> Response:
    return jsonify(_document())


@blueprint.get("/docs")
def docs() -> Response:
    page = make_response(render_template("reference.html", spec=_document()))
    page.headers["Content-Security-Policy"] = POLICY
    return page


def _document() -> dict[str, Any]:
    found: dict[str, Any] = current_app.extensions["openapi"]()
    return found

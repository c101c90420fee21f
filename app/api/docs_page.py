"""The OpenAPI document and a page to read it by. Whoever has a token may see them; a browser asks for it."""

from typing import Any

from flask import Blueprint, Response, current_app, jsonify, make_response, render_template

from app.api.auth import Role, let_in, shown, typed_in
from app.api.errors import answer
from app.domain.errors import Kind, Refused

blueprint = Blueprint("reference", __name__, template_folder="templates")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


@blueprint.before_request
def _with_a_token() -> Response | None:
    try:
        let_in(*Role, by=shown() or typed_in())
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

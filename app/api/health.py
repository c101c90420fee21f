"""Whether we live, and whether what we need is there."""

import sqlalchemy as sa
from flask import Response, jsonify
from sqlalchemy.exc import SQLAlchemyError

from app import broker
from app.api import responses
from app.api.auth import fleet
from app.api.openapi import Blueprint

blueprint = Blueprint("health", __name__, description="Open to anyone")


@blueprint.get("/healthz")
@blueprint.response(200, {"type": "string"}, content_type="text/plain", description="The text `ok`")
@blueprint.doc(security=[], operationId="healthz")
def healthz() -> Response:
    """Whether this process answers."""
    return Response("ok", mimetype="text/plain")


@blueprint.get("/readyz")
@blueprint.response(200, responses.Readiness)
@blueprint.alt_response(503, schema=responses.Readiness, description="The database is away")
@blueprint.doc(security=[], operationId="readyz")
def readyz() -> Response:
    """200 when the database answers; a broker that does not is named, and is no reason to send us nothing."""
    words = {"database": _word(_database()), "broker": _word(broker.broker_answers(fleet().config.redis_url))}
    response = jsonify(words)
    response.status_code = 200 if words["database"] == "ok" else 503
    return response


def _word(there: bool) -> str:
    return "ok" if there else "away"


def _database() -> bool:
    try:
        with fleet().engine.begin() as conn:
            return bool(conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())
    except SQLAlchemyError:
        return False

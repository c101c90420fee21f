"""Whether we live, and whether what we need is there."""

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify
from sqlalchemy.exc import SQLAlchemyError

from app import broker
from app.api import responses
from app.api.auth import fleet
from app.api.openapi import open_answers, response

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@open_answers({200: response({"type": "string"}, "The text `ok`", "text/plain")})
def healthz() -> Response:
    """Whether this process answers."""
    return Response("ok", mimetype="text/plain")


@blueprint.get("/readyz")
@open_answers({200: response(responses.Readiness), 503: response(responses.Readiness, "The database is away")})
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

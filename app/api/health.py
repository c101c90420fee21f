"""Health checks: the process answers, and the database and broker answer."""

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify
from sqlalchemy.exc import SQLAlchemyError

from app import broker
from app.api.auth import fleet
from app.api.host_responses import Readiness
from app.api.openapi import open_answers, response

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@open_answers({200: response({"type": "string"}, "The text `ok`", "text/plain")})
def healthz() -> Response:
    """Check that the process answers."""
    return Response("ok", mimetype="text/plain")


@blueprint.get("/readyz")
@open_answers({200: response(Readiness), 503: response(Readiness, "The database does not answer")})
def readyz() -> Response:
    """Check the database and the broker. 503 if the database does not answer; without the broker, requests still
    succeed."""
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

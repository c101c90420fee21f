"""Turns exceptions into JSON errors; one table maps each kind of error to its status."""

from typing import Any

import structlog
from flask import Flask, Response, jsonify
from sqlalchemy.exc import DataError, DBAPIError, TimeoutError
from werkzeug.exceptions import HTTPException

from app.domain.errors import Refused

STATUS = {
    "invalid": 400, "unauthorized": 401, "forbidden": 403, "unknown": 404, "stale": 409, "too_large": 413,
    "busy": 429, "broken": 500, "unavailable": 503,
}  # fmt: skip
KIND = {status: kind for kind, status in STATUS.items()} | {405: "invalid", 415: "invalid", 422: "invalid"}
SENTENCE = {
    404: "Nothing is at this address; the API is under /api/v1.",
    405: "This address does not support that method.",
    413: "The body is larger than 10 MiB.",
    415: "Send JSON, with Content-Type: application/json.",
}
TRY_AGAIN = {"busy": "5", "unavailable": "5"}  # seconds
log = structlog.get_logger()


def register(app: Flask) -> None:
    app.register_error_handler(Refused, lambda error: answer(error.kind, str(error)))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(DataError, _unstorable)
    app.register_error_handler(UnicodeEncodeError, _unstorable)
    app.register_error_handler(ValueError, _value)
    app.register_error_handler(RecursionError, lambda _: answer("invalid", "The body is nested too deeply."))
    app.register_error_handler(DBAPIError, _database_away)
    app.register_error_handler(TimeoutError, _database_away)
    app.register_error_handler(Exception, _broken)


def answer(kind: str, sentence: str, **more: Any) -> Response:
    """An error response: `{"error", "code"}` with the status of its kind."""
    response = jsonify({"error": sentence, "code": kind, **more})
    response.status_code = STATUS[kind]
    if kind in TRY_AGAIN:
        response.headers["Retry-After"] = TRY_AGAIN[kind]
    return response


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    faults = getattr(error, "data", {}).get("messages")
    sentence = _flatten(faults) if faults else SENTENCE.get(status) or error.description or error.name
    response = answer(KIND.get(status, "invalid" if status < 500 else "broken"), sentence)
    if status in (405,):
        response.status_code = status
        response.headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    return response


def _flatten(faults: Any) -> str:
    """One sentence of webargs' nested messages, such as {"json": {"title": ["Missing ..."]}}."""
    if isinstance(faults, dict):
        parts = [
            f"{name}: {_flatten(inner)}" if name not in ("json", "query", "_schema") else _flatten(inner)
            for name, inner in faults.items()
        ]
        return "; ".join(parts)
    return " ".join(str(fault) for fault in faults) if isinstance(faults, list) else str(faults)


def _unstorable(_: Exception) -> Response:
    return answer("invalid", "Invalid value: a NUL byte, a lone surrogate, or a number out of range.")


def _value(error: ValueError) -> Response:
    """Python's JSON parser refuses numbers with thousands of digits. Any other ValueError is a bug."""
    return _unstorable(error) if "integer string conversion" in str(error) else _broken(error)


def _database_away(error: Exception) -> Response:
    log.error("the database does not answer", why=str(error).splitlines()[0][:300])
    return answer("unavailable", "The database does not answer; try again.")


def _broken(error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return answer("broken", "Internal error; the log of the web process has the details.")

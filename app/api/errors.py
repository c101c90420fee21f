"""From a kind of error to its status, as one table; never an HTML page, never a stack trace."""

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
    404: "There is nothing at this address; the API is under /api/v1.",
    405: "This address does not take that method.",
    413: "The body is larger than 10 MiB.",
    415: "Send JSON, with Content-Type: application/json.",
}
TRY_AGAIN = {"busy": "5", "unavailable": "5"}  # seconds
log = structlog.get_logger()


def register(app: Flask) -> None:
    app.register_error_handler(Refused, lambda error: answer(error.kind, str(error)))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(DataError, _not_for_a_database)
    app.register_error_handler(UnicodeEncodeError, _not_for_a_database)
    app.register_error_handler(ValueError, _value)
    app.register_error_handler(RecursionError, lambda _: answer("invalid", "The body is nested too deeply."))
    app.register_error_handler(DBAPIError, _no_database)
    app.register_error_handler(TimeoutError, _no_database)
    app.register_error_handler(Exception, _broken)


def answer(kind: str, sentence: str, **more: Any) -> Response:
    """The contract's error: `{"error", "code"}` with the status of its kind."""
    response = jsonify({"error": sentence, "code": kind, **more})
    response.status_code = STATUS[kind]
    if kind in TRY_AGAIN:
        response.headers["Retry-After"] = TRY_AGAIN[kind]
    return response


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    faults = getattr(error, "data", {}).get("messages")
    sentence = _named(faults) if faults else SENTENCE.get(status) or error.description or error.name
    response = answer(KIND.get(status, "invalid" if status < 500 else "broken"), sentence)
    if status in (405,):
        response.status_code = status
        response.headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    return response


def _named(faults: Any) -> str:
    """webargs' nested messages as one sentence that names each field: {"json": {"title": ["Missing ..."]}}."""
    if isinstance(faults, dict):
        parts = [
            f"{name}: {_named(inner)}" if name not in ("json", "query", "_schema") else _named(inner)
            for name, inner in faults.items()
        ]
        return "; ".join(parts)
    return " ".join(str(fault) for fault in faults) if isinstance(faults, list) else str(faults)


def _not_for_a_database(_: Exception) -> Response:
    return answer("invalid", "The request holds what no database can: NUL, half a character, or too large a number.")


def _value(error: ValueError) -> Response:
    """A number with thousands of digits is refused by Python's own JSON reader; any other ValueError is ours."""
    return _not_for_a_database(error) if "integer string conversion" in str(error) else _broken(error)


def _no_database(error: Exception) -> Response:
    log.error("no database", why=str(error).splitlines()[0][:300])
    return answer("unavailable", "The database does not answer; try again.")


def _broken(error: Exception) -> Response:
    log.error("a request broke", exc_info=error)
    return answer("broken", "Something broke here; the log of the web process says what.")

"""Who may come in: operators by token, compared as hashes in constant time."""

import hashlib
import hmac

from flask import current_app, request

from app.domain.errors import Kind, Refused
from app.ports import Fleet


def fleet() -> Fleet:
    """What this application works with."""
    found: Fleet = current_app.extensions["fleet"]
    return found


def operators_only() -> None:
    """Let an operator in, or raise Refused(unauthorized)."""
    expected = fleet().config.secret("FLEET_OPERATOR_TOKEN")
    if not expected:
        raise Refused(Kind.UNAUTHORIZED, "No operator token is set: set FLEET_OPERATOR_TOKEN for the web process.")
    if not _same(_shown(), expected):
        raise Refused(Kind.UNAUTHORIZED, "Show an operator token: Authorization: Bearer <token>.")


def _shown() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() in ("bearer", "token") else ""


def _same(shown: str, expected: str) -> bool:
    return hmac.compare_digest(_hash(shown), _hash(expected))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()

"""Receives Forgejo's webhook deliveries: checks the signature, then stores the raw body before it answers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, jsonify, request
from sqlalchemy import Connection

from app import wiring
from app.domain.errors import Kind, Refused
from app.forgejo import hints
from app.forgejo.signature import is_signed
from app.ports import Fleet
from app.store import deliveries, fleet_config, periodic_jobs

blueprint = Blueprint("webhooks", __name__)

SIGNATURES = ("X-Forgejo-Signature", "X-Gitea-Signature", "X-Hub-Signature-256")
EVENT_TYPES = ("X-Forgejo-Event-Type", "X-Gitea-Event-Type", "X-Forgejo-Event", "X-Gitea-Event")
DELIVERIES = ("X-Forgejo-Delivery", "X-Gitea-Delivery")
LONGEST_HEADER = 200
RECORDED_EVERY = timedelta(minutes=1)
FORM = "application/x-www-form-urlencoded"


@blueprint.post("/webhooks/forgejo")
def receive() -> tuple[Response, int]:
    """Store a delivery. Answers 202 once it is stored, also for a repeated one; 401 without a valid signature."""
    fleet: Fleet = current_app.extensions["fleet"]
    if request.mimetype == FORM:
        raise Refused(Kind.INVALID, "This hook sends a form: set its content type to application/json.")
    body = request.get_data(cache=True)
    event = _header(EVENT_TYPES) or "unknown"
    delivery = _header(DELIVERIES) or f"sha256:{hashlib.sha256(body).hexdigest()}"
    with _record_wrong_signatures(fleet), fleet.engine.begin() as conn:
        forge = _signing_forge(fleet, conn, body)
        new = deliveries.add(conn, forge, delivery, event, body, fleet.clock())
    if new:
        fleet.nudge.soon()
    return jsonify({"result": "accepted" if new else "duplicate", "delivery": delivery}), 202


@contextmanager
def _record_wrong_signatures(fleet: Fleet) -> Iterator[None]:
    """Record when a wrong signature was seen, at most once a minute. `fleet doctor` reports it."""
    try:
        yield
    except Refused as no:
        if no.kind is Kind.UNAUTHORIZED and _header(EVENT_TYPES):
            with fleet.engine.begin() as conn:
                periodic_jobs.is_due(conn, deliveries.REFUSED, fleet.clock(), RECORDED_EVERY)
        raise


def _signing_forge(fleet: Fleet, conn: Connection, body: bytes) -> str:
    """The name of the forge whose secret signed the body.

    If several forges share the secret, the address of the repository in the body decides: a delivery must never count
    as another forge's. Raises Refused(unauthorized).
    """
    signature = _header(SIGNATURES)
    known = wiring.webhook_secrets(fleet, conn).items()
    signed = [forge for forge, secrets in known if any(is_signed(secret, body, signature) for secret in secrets)]
    if not signed:
        raise Refused(
            Kind.UNAUTHORIZED,
            "The signature is missing or wrong: set the hook's secret to the webhook secret of this fleet.",
        )
    if len(signed) == 1:
        return signed[0]
    address = hints.forge_address(body)
    matching = [
        row.name for row in fleet_config.all_forges(conn) if row.name in signed and _address(row.url) == address
    ]
    if len(matching) != 1:
        raise Refused(
            Kind.UNAUTHORIZED,
            f"The forges {', '.join(signed)} share this secret, and the delivery does not say which of them sent it: "
            "give each a secret of its own (webhook_secret_env in fleet.toml).",
        )
    return str(matching[0])


def _address(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _header(names: tuple[str, ...]) -> str | None:
    """The first of these headers that is not empty, without NUL characters, which Postgres cannot store."""
    given = next((request.headers[name] for name in names if request.headers.get(name)), None)
    return given.replace("\x00", "")[:LONGEST_HEADER] if given else None

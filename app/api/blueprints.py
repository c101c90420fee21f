"""Puts the API together: every address under one base, and the document that describes it."""

from functools import partial

from flask import Flask

from app.api import agents, docs_page, errors, health, hosts, responses, tasks
from app.api.openapi import Api, document


def register(app: Flask, base: str) -> None:
    """Put the API under `base`; health also at the root, where load balancers look."""
    app.config |= {
        "API_TITLE": "agent-fleet",
        "API_VERSION": "v1",
        "OPENAPI_VERSION": "3.1.0",
        "API_SPEC_OPTIONS": {"security": [{"token": []}]},
    }
    api = Api(app)
    api.spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    errors.register(app)  # after Api, which brings an error shape of its own
    for blueprint, name in (
        (agents.blueprint, "agents"),
        (tasks.blueprint, "tasks"),
        (tasks.receipts, "receipts"),
        (hosts.blueprint, "hosts"),
    ):
        api.register_blueprint(blueprint, url_prefix=f"{base}/{name}")
    api.register_blueprint(health.blueprint)
    app.register_blueprint(health.blueprint, name="health_v1", url_prefix=base)
    for shape in (responses.Delivery, responses.Work, responses.Batch):
        api.spec.components.schema(shape.__name__, schema=shape)
    app.extensions["openapi"] = partial(document, api.spec, base)
    app.register_blueprint(docs_page.blueprint, url_prefix=base)

"""Registers the blueprints of the API and its OpenAPI document."""

from functools import cache, partial

from flask import Flask

from app.api import agents, docs_page, errors, health, hosts, tasks
from app.api.openapi import document

DESCRIPTIONS = {
    agents.blueprint: "Programs that pull work over HTTP",
    tasks.blueprint: "Tasks and their state",
    tasks.receipts: "Receipts of finished work",
    hosts.blueprint: "Machines that the fleet connects to over SSH",
    health.blueprint: "Health checks; no token needed",
}


def register(app: Flask, base: str) -> None:
    """Register the API under `base`; health also at the root, where load balancers look."""
    errors.register(app)
    for blueprint in (agents.blueprint, tasks.blueprint, tasks.receipts, hosts.blueprint):
        app.register_blueprint(blueprint, url_prefix=f"{base}/{blueprint.name}")
    app.register_blueprint(health.blueprint)
    app.register_blueprint(health.blueprint, name="health_v1", url_prefix=base)
    app.register_blueprint(docs_page.blueprint, url_prefix=base)
    app.extensions["openapi"] = cache(partial(document, app, base, DESCRIPTIONS))

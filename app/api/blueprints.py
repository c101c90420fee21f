"""Puts the API together: every address under one base, and the document that describes it."""

from functools import cache, partial

from flask import Flask

from app.api import agents, docs_page, errors, health, hosts, tasks
from app.api.openapi import document

DESCRIPTIONS = {
    agents.blueprint: "Programs that come to us for work",
    tasks.blueprint: "What is wanted, and how far it has come",
    tasks.receipts: "The proof of finished work",
    hosts.blueprint: "Machines that we go to",
    health.blueprint: "Open to anyone",
}


def register(app: Flask, base: str) -> None:
    """Put the API under `base`; health also at the root, where load balancers look."""
    errors.register(app)
    for blueprint in (agents.blueprint, tasks.blueprint, tasks.receipts, hosts.blueprint):
        app.register_blueprint(blueprint, url_prefix=f"{base}/{blueprint.name}")
    app.register_blueprint(health.blueprint)
    app.register_blueprint(health.blueprint, name="health_v1", url_prefix=base)
    app.register_blueprint(docs_page.blueprint, url_prefix=base)
    app.extensions["openapi"] = cache(partial(document, app, base, DESCRIPTIONS))

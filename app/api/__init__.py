"""The JSON API for agents and operators."""

from flask import Flask
from flask_smorest import Api

from app.api import agents, errors, health, hosts, tasks


def register(app: Flask, base: str) -> None:
    """Put the API under `base`; health also at the root, where load balancers look."""
    app.config |= {"API_TITLE": "agent-fleet", "API_VERSION": "v1", "OPENAPI_VERSION": "3.1.0"}
    smorest = Api(app)
    errors.register(app)  # after Api, which brings an error shape of its own
    for blueprint, name in (
        (agents.blueprint, "agents"),
        (tasks.blueprint, "tasks"),
        (tasks.receipts, "receipts"),
        (hosts.blueprint, "hosts"),
    ):
        smorest.register_blueprint(blueprint, url_prefix=f"{base}/{name}")
    app.register_blueprint(health.blueprint)
    app.register_blueprint(health.blueprint, name="health_v1", url_prefix=base)

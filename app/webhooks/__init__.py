"""HTTP endpoint for webhook deliveries: check the signature, store, answer. Workers apply them later."""

from flask import Flask

from app.webhooks import forgejo


def register(app: Flask, base: str) -> None:
    """Register the endpoint under the API's base path and at the root."""
    app.register_blueprint(forgejo.blueprint)
    app.register_blueprint(forgejo.blueprint, name="webhooks_v1", url_prefix=base)

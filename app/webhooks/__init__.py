"""The door for deliveries: checked, stored raw, answered; applied later."""

from flask import Flask

from app.webhooks import forgejo
from app.webhooks.doorbell import Doorbell


def register(app: Flask, base: str) -> None:
    """The forge's address, under the API's base and at the root."""

    def nudge() -> None:
        app.extensions["fleet"].nudge.soon()

    app.extensions["doorbell"] = Doorbell(nudge)
    app.register_blueprint(forgejo.blueprint)
    app.register_blueprint(forgejo.blueprint, name="webhooks_v1", url_prefix=base)

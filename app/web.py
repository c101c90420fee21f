"""The Flask factory: the faces on one application, every answer JSON, every error a sentence."""

from flask import Flask

from app import api, webhooks, wiring
from app.api.waiting import Waiting
from app.ports import Fleet

BASE = "/api/v1"
LARGEST_BODY = 10 * 1024 * 1024
SEATS = 48  # of the threads, how many may wait for work at once


def create_app(fleet: Fleet | None = None) -> Flask:
    """The application. Without `fleet`, it is wired from the environment."""
    app = Flask("fleet", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # no address is answered with a redirect
    app.extensions["fleet"] = fleet or wiring.fleet()
    app.extensions["waiting"] = Waiting(app.extensions["fleet"], SEATS)
    if fleet is None:
        app.extensions["waiting"].open()
    api.register(app, BASE)
    webhooks.register(app, BASE)
    return app

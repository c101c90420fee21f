"""The Flask factory: the faces on one application, every answer JSON, every error a sentence."""

from typing import Any

from flask import Flask, Request
from werkzeug.exceptions import RequestEntityTooLarge

from app import webhooks, wiring
from app.api import blueprints
from app.api.long_poll import Waiting
from app.ports import Fleet
from app.webhooks.nudge_thread import Doorbell

BASE = "/api/v1"
LARGEST_BODY = 10 * 1024 * 1024
SHARE_WHO_WAIT = 0.75  # of the threads, how many may wait for work at once: the rest answers everybody else


class Whole(Request):
    """A request whose body is all there or refused: one that comes in pieces, without a length, would be cut off
    silently at the most that we take."""

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get_data(*args, **kwargs)
        most = self.max_content_length
        if self.content_length is None and most is not None and len(found) >= most:
            raise RequestEntityTooLarge
        return found


def create_app(fleet: Fleet | None = None) -> Flask:
    """The application. Without `fleet`, it is wired from the environment."""
    app = Flask("fleet", static_folder=None)
    app.request_class = Whole
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # no address is answered with a redirect
    furnish(app, fleet or wiring.fleet())
    if fleet is None:
        app.extensions["waiting"].open()
    blueprints.register(app, BASE)
    webhooks.register(app, BASE)
    return app


def furnish(app: Flask, fleet: Fleet) -> None:
    """Have the application work for this fleet."""
    app.extensions["fleet"] = fleet
    app.extensions["waiting"] = Waiting(fleet, int(fleet.config.web_threads * SHARE_WHO_WAIT))
    app.extensions["doorbell"] = Doorbell(fleet.nudge.soon)

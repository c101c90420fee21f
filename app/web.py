"""Creates the Flask application: API, webhooks and health checks. Every response is JSON."""

from typing import Any

from flask import Flask, Request
from werkzeug.exceptions import RequestEntityTooLarge

from app import webhooks, wiring
from app.api import blueprints
from app.api.long_poll import LongPolls
from app.ports import Fleet

BASE = "/api/v1"
LARGEST_BODY = 10 * 1024 * 1024
LONG_POLL_SHARE = 0.75  # of the threads may serve long polls at once; the rest serve other requests


class WholeBodyRequest(Request):
    """Refuses a body above the limit that comes in chunks, without a length: Werkzeug would truncate it silently."""

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get_data(*args, **kwargs)
        most = self.max_content_length
        if self.content_length is None and most is not None and len(found) >= most:
            raise RequestEntityTooLarge
        return found


def create_app(fleet: Fleet | None = None) -> Flask:
    """The application. Without `fleet`, it is configured from the environment."""
    app = Flask("fleet", static_folder=None)
    app.request_class = WholeBodyRequest
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # no redirects
    attach_fleet(app, fleet or wiring.fleet())
    if fleet is None:
        app.extensions["long_polls"].open()
    blueprints.register(app, BASE)
    webhooks.register(app, BASE)
    return app


def attach_fleet(app: Flask, fleet: Fleet) -> None:
    """Let the application serve this fleet."""
    app.extensions["fleet"] = fleet
    app.extensions["long_polls"] = LongPolls(fleet, int(fleet.config.web_threads * LONG_POLL_SHARE))

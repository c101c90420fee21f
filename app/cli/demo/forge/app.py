"""Builds the Flask application of the fake forge, and injects faults around each call."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask, Response, request
from werkzeug.wrappers import Request

from . import api, api_code, api_hooks, api_issues, api_labels, api_pulls, api_repos, api_reviews, git_http
from . import lfs as _lfs  # noqa: F401 - its routes are among git's
from .contract import Contract
from .faults import Fault, Faults
from .http_server import Cut
from .store import Store

LARGEST_BODY = 100 * 1024 * 1024
PARTS = (
    api_repos.site,
    api_repos.routes,
    api_code.routes,
    api_issues.routes,
    api_labels.routes,
    api_pulls.routes,
    api_reviews.routes,
    api_hooks.routes,
    api_hooks.organisations,
    git_http.routes,
)


class ForgeApp(Flask):
    """Everything that is not a push or fetch runs under the lock of the store that it is about."""

    def __init__(self) -> None:
        super().__init__("fake-forge", static_folder=None)
        self.config.update(MAX_CONTENT_LENGTH=LARGEST_BODY)
        self.json.sort_keys = False  # type: ignore[attr-defined]
        for part in PARTS:
            self.register_blueprint(part)
        api.install(self)
        self.after_request(held_to_the_contract)

    def dispatch_request(self) -> Any:
        if request.blueprint == "git":
            return super().dispatch_request()
        with api.store().lock:
            return super().dispatch_request()


@cache
def the_app() -> ForgeApp:
    """One for all forges of this process: to make its routes takes longer than most tests."""
    return ForgeApp()


def held_to_the_contract(response: Response) -> Response:
    contract: Contract | None = request.environ["forge.contract"]
    return contract.after_request(response) if contract else response


class WsgiFrontend:
    """The forge as a WSGI application: its own store on the one application; faults strike outside it."""

    def __init__(self, store: Store, faults: Faults, contract: Contract | None) -> None:
        self.faults, self.store, self.contract = faults, store, contract
        self.calls: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["forge.store"], environ["forge.contract"] = self.store, self.contract
        path = environ.get("REQUEST_URI", environ["PATH_INFO"]).split("?")[0]
        environ["PATH_INFO"] = "/".join(
            unquote_to_bytes(part).decode("latin-1").replace("/", api.SLASH) for part in path.split("/")
        )
        self.calls.append(f"{environ['REQUEST_METHOD']} {path.removeprefix('/api/v1')}")
        fault = self.faults.take(environ["REQUEST_METHOD"], path)
        if fault is None:
            return the_app().wsgi_app(environ, start_response)
        return self.go_wrong(fault, environ, start_response)

    def go_wrong(self, fault: Fault, environ: Any, start_response: Any) -> Iterable[bytes]:
        if fault.after_doing:
            list(the_app().wsgi_app(environ, lambda *_: lambda data: None))
        else:
            Request(environ).get_data()
        what = str(fault.what).removesuffix("-after-doing")
        if what == "hang":
            self.faults.hang()
        if not what.isdigit():
            raise Cut("cut by a fault")
        headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
        return Response('{"message":"a fault"}', int(what), headers, content_type="application/json")(
            environ, start_response
        )

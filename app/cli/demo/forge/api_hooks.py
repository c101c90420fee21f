"""REST: webhooks of a repository and of an organisation, with their traps."""

from __future__ import annotations

from flask import Blueprint, Response, request

from . import repository_json, webhook_payloads
from .api import ApiError, answer, for_repositories, json_body, me, no_content, paged, repository, require, store
from .models import Hook
from .subscriptions import RUNS, wanted

routes = for_repositories("hooks")
organisations = Blueprint("organisations", __name__, url_prefix="/api/v1/orgs/<org>")


@routes.get("/hooks")
def list_hooks() -> Response:
    require("admin")
    return paged(of_repository(), repository_json.hook)


@routes.post("/hooks")
def make() -> Response:
    require("admin")
    hook = from_order()
    hook.repository_id = repository().id
    return answer(repository_json.hook(hook), 201)


@routes.route("/hooks/<int:number>", methods=["GET", "PATCH", "DELETE"])
def one_hook(number: int) -> Response:
    require("admin")
    return on_one(number, of_repository())


@routes.post("/hooks/<int:number>/tests")
def test(number: int) -> Response:
    """Sends a push of the default branch's head with before == after, whatever the hook wants."""
    user = require("admin")
    hook = pick(number, of_repository())
    store().webhooks.send(hook, "push", webhook_payloads.test_push(store(), repository(), user))
    return no_content()


@organisations.get("/labels")
def labels_of_organisation(org: str) -> Response:
    """None: this forge's labels belong to repositories."""
    found = store().users.get(org.lower())
    if found is None or found.owners is None:
        raise ApiError(404)
    return answer([])


@organisations.get("/repos")
def repositories_of(org: str) -> Response:
    """The repositories that the caller may see."""
    found = store().users.get(org.lower())
    if found is None or found.owners is None:
        raise ApiError(404)
    seen = [one for one in store().repositories.values() if one.owner is found and store().may(me(), "read", one)]
    return paged(seen, lambda one: repository_json.repository(store(), one, me()))


@organisations.get("/hooks")
def list_of_organisation(org: str) -> Response:
    return paged(of_organisation(org), repository_json.hook)


@organisations.post("/hooks")
def make_for_organisation(org: str) -> Response:
    of_organisation(org)
    hook = from_order()
    hook.organisation = store().users[org.lower()].login
    return answer(repository_json.hook(hook), 201)


@organisations.route("/hooks/<int:number>", methods=["GET", "PATCH", "DELETE"])
def one_of_organisation(org: str, number: int) -> Response:
    return on_one(number, of_organisation(org))


def of_repository() -> list[Hook]:
    return [hook for hook in store().hooks.values() if hook.repository_id == repository().id]


def of_organisation(name: str) -> list[Hook]:
    org, user = store().users.get(name.lower()), me()
    if org is None or org.owners is None:
        raise ApiError(404)
    if user.login not in org.owners and not user.is_admin:
        raise ApiError(403, "Must be an organization owner")
    return [hook for hook in store().hooks.values() if hook.organisation == org.login]


def pick(number: int, among: list[Hook]) -> Hook:
    for hook in among:
        if hook.id == number:
            return hook
    raise ApiError(404)


def from_order() -> Hook:
    """`active` is false unless asked for; without events it is push alone."""
    order = json_body("type", "config")
    config = order["config"]
    for name in ("url", "content_type"):
        if not config.get(name):
            raise ApiError(422, f"Missing config option: {name}")
    if order["type"] not in ("forgejo", "gitea"):
        raise ApiError(422, f"Invalid hook type: {order['type']}")
    if config["content_type"] not in ("json", "form"):
        raise ApiError(422, "Invalid content type")
    now = store().now()
    hook = Hook(
        next(store().hook_ids),
        order["type"],
        config["url"],
        config["content_type"],
        config.get("secret") or "",
        bool(order.get("active")),
        wanted(order.get("events") or []),
        order.get("branch_filter") or "",
        order.get("authorization_header") or "",
        now,
        now,
    )
    store().hooks[hook.id] = hook
    return hook


def on_one(number: int, among: list[Hook]) -> Response:
    hook = pick(number, among)
    if request.method == "DELETE":
        del store().hooks[hook.id]
        return no_content()
    if request.method == "PATCH":
        edit(hook)
    return answer(repository_json.hook(hook))


def edit(hook: Hook) -> None:
    """The trap: no new secret, no action_run events, and what is not sent again is lost."""
    order = json_body()
    config = order.get("config") or {}
    hook.url, hook.content_type = (
        config.get("url") or hook.url,
        config.get("content_type") or hook.content_type,
    )
    hook.wants = (wanted(order.get("events") or []) - set(RUNS)) | (hook.wants & set(RUNS))
    hook.branch_filter = order.get("branch_filter") or ""
    hook.authorization = order.get("authorization_header") or ""
    if order.get("active") is not None:
        hook.active = bool(order["active"])
    hook.updated = store().now()

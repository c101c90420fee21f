"""Shared by the REST routes: authentication, finding the repository, pages, errors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, g, jsonify, request

from .git_commands import Refused
from .merges import MergeRefused
from .models import Comment, Issue, Json, Pull, Repository, Review, User
from .store import Store

DEFAULT_PAGE = 30
SCOPES = (("user", "/user"), ("organization", "/orgs/"), ("issue", "/repos/[^/]+/[^/]+/(issues|labels|milestones)"))
SLASH = "\x1f"  # stands for an encoded slash between the raw path and the routes


class ApiError(Exception):
    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status


def for_repositories(name: str) -> Blueprint:
    """Routes below /repos/{owner}/{repo}: the repository is found before the route is entered."""
    return Blueprint(name, __name__, url_prefix="/api/v1/repos/<owner>/<repo>")


def install(app: Flask) -> None:
    app.before_request(authenticate)
    app.url_value_preprocessor(decode_slashes)
    app.url_value_preprocessor(find_repository)
    app.register_error_handler(ApiError, lambda problem: refusal(problem.status, str(problem)))
    app.register_error_handler(MergeRefused, lambda problem: refusal(problem.status, str(problem)))
    app.register_error_handler(Refused, lambda problem: refusal(409, str(problem)))
    app.register_error_handler(404, lambda problem: refusal(404, "Not Found"))
    app.register_error_handler(405, lambda problem: refusal(405, "Method Not Allowed"))


def refusal(status: int, message: str) -> Response:
    words: Json = {"message": message, "url": f"{store().url}/api/swagger"}
    if status == 404:
        words = {"message": message or "The target couldn't be found.", "url": words["url"], "errors": []}
    return answer(words, status)


def answer(what: Any, status: int = 200) -> Response:
    made = jsonify(what)
    made.status_code = status
    return made


def no_content(status: int = 204) -> Response:
    return Response(status=status)


def store() -> Store:
    return cast(Store, request.environ["forge.store"])


def repository() -> Repository:
    return cast(Repository, g.repository)


def viewer() -> User | None:
    return cast("User | None", g.viewer)


def me() -> User:
    user = viewer()
    if user is None:
        raise ApiError(401, "token is required")
    return user


def authenticate() -> Response | None:
    request.get_data()  # read to the end whatever comes of it, or the next request on this connection breaks
    token = credentials()
    g.viewer = store().tokens.get(token) if token else None
    if token and g.viewer is None:
        raise ApiError(401, "user does not exist or token is wrong")
    check_scope(token)
    if request.blueprint and request.blueprint != "git" and "repository" in g:
        if g.repository is None and (now := store().renamed.get(g.asked_for.lower())):
            return Response(status=307, headers={"Location": moved_to(now)})
        check_access(g.repository)
    return None


def check_scope(token: str) -> None:
    """The path alone decides which scope a token needs; a scope for writing allows reading."""
    has, path = store().scopes.get(token), request.path.removeprefix("/api/v1")
    if has is None or not request.path.startswith("/api/v1/") or path == "/version":
        return
    kind = next((kind for kind, start in SCOPES if re.match(start, path)), "repository")
    wanted = {f"write:{kind}"} | ({f"read:{kind}"} if request.method == "GET" else set())
    if not wanted & has:
        raise ApiError(403, f"token does not have at least one of required scope(s): [{min(wanted)}]")


def moved_to(repo: Repository) -> str:
    """The address that was asked for, with the repository's present name in it."""
    address = request.environ["REQUEST_URI"]
    return str(address[address.index("/api/v1") :].replace(g.asked_for, repo.full_name, 1))


def credentials() -> str:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() in ("token", "bearer"):
        return value.strip()
    if kind.lower() == "basic":
        return from_basic(value)
    return request.args.get("token", "")


def from_basic(value: str) -> str:
    """The token is the password, or the name when there is no password worth the name."""
    try:
        name, _, password = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "-"
    return name if password in ("", "x-oauth-basic") else password


def decode_slashes(endpoint: str | None, values: dict[str, Any] | None) -> None:
    for key, value in (values or {}).items():
        if values is not None and isinstance(value, str):
            values[key] = value.replace(SLASH, "/")


def find_repository(endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values is None or "owner" not in values or "repo" not in values:
        return
    full_name = g.asked_for = f"{values.pop('owner')}/{values.pop('repo')}"
    g.repository = store().repositories.get(full_name.lower().removesuffix(".git"))


def check_access(repo: Repository | None) -> None:
    if repo is None or not store().may(viewer(), "read", repo):
        raise ApiError(404)
    if request.method != "GET":
        me()
        if repo.archived:
            raise ApiError(423, "repo is archived")


def require(right: str, message: str = "user should have a permission to write to a repo") -> User:
    user = me()
    if not store().may(user, right, repository()):
        raise ApiError(403, message)
    return user


def json_body(*required: str) -> Json:
    """The body of the call; 422 when it is no object or lacks a field."""
    body = request.get_json(silent=True)
    if request.get_data() and not isinstance(body, dict):
        raise ApiError(422, "the body is not a JSON object")
    for name in required:
        if not (body or {}).get(name):
            raise ApiError(422, f"[{name.capitalize()}]: Required")
    return cast(Json, body or {})


def issue_of(number: int) -> Issue:
    one = repository().issues.get(number)
    if one is None:
        raise ApiError(404)
    return one


def pull_of(number: int) -> tuple[Issue, Pull]:
    one = issue_of(number)
    if one.pull is None:
        raise ApiError(404)
    return one, one.pull


def comment_of(number: int) -> tuple[Issue, Comment]:
    for one in repository().issues.values():
        for line in one.comments:
            if line.id == number:
                return one, line
    raise ApiError(404)


def review_of(pull: Pull, number: int) -> Review:
    for review in pull.reviews:
        if review.id == number:
            return review
    raise ApiError(404)


def users(logins: list[str]) -> list[User]:
    some = [store().users.get(login.lower()) for login in logins]
    if None in some:
        raise ApiError(422, "user does not exist")
    return [user for user in some if user]


def moment(name: str) -> datetime | None:
    """A time with its zone (RFC 3339), or 422; a + that was not encoded arrives as a space."""
    text = request.args.get(name, "")
    try:
        found = datetime.fromisoformat(text.replace(" ", "+")) if text else None
    except ValueError as wrong:
        raise ApiError(422, f"{name} is not a time: {text}") from wrong
    if found is not None and found.tzinfo is None:
        raise ApiError(422, f"{name} has no zone: {text}")
    return found


def in_time(items: list[Any]) -> list[Any]:
    """Those updated between ?since= and ?before=, both included."""
    since, before = moment("since"), moment("before")
    return [
        item
        for item in items
        if (since is None or item.updated >= since) and (before is None or item.updated <= before)
    ]


def paged(items: list[Any], show: Callable[[Any], Json]) -> Response:
    """One page of it, with X-Total-Count and Link; a limit that is too large is cut without a word."""
    page = max(request.args.get("page", 1, int), 1)
    limit = min(request.args.get("limit", DEFAULT_PAGE, int) or DEFAULT_PAGE, store().largest_page)
    made = answer([show(item) for item in items[(page - 1) * limit : page * limit]])
    made.headers["X-Total-Count"] = str(len(items))
    made.headers["Access-Control-Expose-Headers"] = "X-Total-Count, Link"
    if link := links(page, limit, len(items)):
        made.headers["Link"] = link
    return made


def links(page: int, limit: int, total: int) -> str:
    last = -(-total // limit)
    wanted = {"next": page + 1, "last": last} if page < last else {}
    wanted |= {"first": 1, "prev": page - 1} if page > 1 else {}
    query = {key: value for key, value in request.args.items() if key not in ("page", "limit")}
    here = f"{store().url}{request.path}"
    return ",".join(
        f'<{here}?{urlencode({**query, "limit": limit, "page": number})}>; rel="{name}"'
        for name, number in wanted.items()
    )

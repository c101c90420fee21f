"""REST: the account, the repository, its people, branches, files and commit statuses."""

from __future__ import annotations

from flask import Blueprint, Response

from . import branches, commits, git_commands, repository_json
from .api import (
    ApiError,
    answer,
    for_repositories,
    json_body,
    me,
    no_content,
    paged,
    repository,
    require,
    store,
    users,
    viewer,
)
from .models import Json

routes = for_repositories("repositories")
site = Blueprint("site", __name__, url_prefix="/api/v1")
VERSION = "16.0.0+gitea-1.22.0"


@site.get("/version")
def version() -> Response:
    return answer({"version": VERSION})


@site.get("/settings/api")
def settings() -> Response:
    return answer(
        {
            "max_response_items": 50,
            "default_paging_num": 30,
            "default_git_trees_per_page": 1000,
            "default_max_blob_size": 10485760,
        }
    )


@site.get("/user")
def who_am_i() -> Response:
    return answer(repository_json.user(store(), me()))


@site.get("/repositories/<int:number>")
def by_number(number: int) -> Response:
    repo = next((one for one in store().repositories.values() if one.id == number), None)
    if repo is None or not store().may(viewer(), "read", repo):
        raise ApiError(404)
    return answer(repository_json.repository(store(), repo, viewer()))


@routes.get("")
def get_repository() -> Response:
    return answer(repository_json.repository(store(), repository(), viewer()))


@routes.get("/collaborators/<login>")
def is_collaborator(login: str) -> Response:
    if users([login])[0].login not in repository().collaborators:
        raise ApiError(404)
    return no_content()


@routes.put("/collaborators/<login>")
def collaborate(login: str) -> Response:
    require("admin")
    repository().collaborators[users([login])[0].login] = json_body().get("permission") or "write"
    return no_content()


@routes.delete("/collaborators/<login>")
def part(login: str) -> Response:
    require("admin")
    repository().collaborators.pop(users([login])[0].login, None)
    return no_content()


@routes.get("/assignees")
def assignees() -> Response:
    """All users with write permission. Reading the repository is enough to ask."""
    found = [
        user for user in store().users.values() if store().may(user, "write", repository()) and user.owners is None
    ]
    return answer([repository_json.user(store(), user) for user in found])


@routes.get("/collaborators/<login>/permission")
def permission(login: str) -> Response:
    """Only admins may ask about others."""
    if login.lower() != me().login.lower() and not store().anyone_may_ask_permissions:
        require(
            "admin",
            "Only admins can query all permissions, repo admins can query all repo permissions, "
            "collaborators can query only their own",
        )
    user = store().users.get(login.lower())
    if user is None:
        raise ApiError(404)
    right = store().right(user, repository())
    return answer({"permission": right, "role_name": right, "user": repository_json.user(store(), user)})


def branch_shown(name: str) -> Json:
    sha = git_commands.branch(repository().path, name)
    if sha is None:
        raise ApiError(404)
    may = store().may(viewer(), "write", repository())
    tip = commits.in_payload(store(), repository(), commits.one_of(repository(), sha))
    return {
        "name": name,
        "commit": {**tip, "added": None, "removed": None, "modified": None},
        "protected": False,
        "required_approvals": 0,
        "enable_status_check": False,
        "status_check_contexts": [],
        "user_can_push": may,
        "user_can_merge": may,
        "effective_branch_protection_name": "",
    }


@routes.get("/branches")
def list_branches() -> Response:
    names = [ref.removeprefix("refs/heads/") for ref in git_commands.refs(repository().path, "refs/heads/")]
    return paged(names, branch_shown)


@routes.get("/branches/<path:name>")
def get_branch(name: str) -> Response:
    return answer(branch_shown(name))


@routes.post("/branches")
def make_branch() -> Response:
    order, user, repo = json_body("new_branch_name"), require("write"), repository()
    name = order["new_branch_name"]
    start = order.get("old_ref_name") or order.get("old_branch_name") or repo.default_branch
    if git_commands.branch(repo.path, name):
        raise ApiError(409, "The branch already exists.")
    sha = git_commands.resolve(repo.path, start)
    if sha is None:
        raise ApiError(404, "The old branch does not exist.")
    branches.make(store(), repo, user, name, sha)
    return answer(branch_shown(name), 201)


@routes.delete("/branches/<path:name>")
def remove_branch(name: str) -> Response:
    user = require("write")
    if name == repository().default_branch:
        raise ApiError(403, "can not delete default branch")
    if git_commands.branch(repository().path, name) is None:
        raise ApiError(404)
    branches.remove(store(), repository(), user, name)
    return no_content()

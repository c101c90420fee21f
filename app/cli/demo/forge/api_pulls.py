"""REST: pull requests: open, find, edit, merge, their commits, files and diff."""

from __future__ import annotations

from flask import Response, request

from . import commits, git_commands, issue_json, issues, merges, pulls, repository_json
from .api import (
    ApiError,
    answer,
    for_repositories,
    json_body,
    me,
    no_content,
    paged,
    pull_of,
    repository,
    require,
    store,
    users,
    viewer,
)
from .models import Issue, Json, Pull

routes = for_repositories("pulls")


def shown(one: Issue) -> Json:
    return issue_json.pull_request(store(), repository(), one, viewer())


@routes.post("/pulls")
def open_pull() -> Response:
    order, user, repo = json_body("title", "head", "base"), me(), repository()
    base, head = order["base"], order["head"].removeprefix(f"{repo.owner.login}:")
    if head == base:
        raise ApiError(422, "Invalid PullRequest: There are no changes between the head and the base")
    if not (git_commands.branch(repo.path, head) and git_commands.branch(repo.path, base)):
        raise ApiError(404)
    if there := pulls.find(repo, base, head, only_open=True):
        raise ApiError(
            409,
            f"pull request already exists for these targets [id: {there.id}, issue_id: {there.id}, "
            f"head_branch: {head}, base_branch: {base}]",
        )
    labels = [label for label in repo.labels if label.id in (order.get("labels") or [])]
    one = pulls.open_pull(
        store(),
        repo,
        user,
        order["title"],
        order.get("body") or "",
        base,
        head,
        labels,
        users(order.get("assignees") or []),
    )
    return answer(shown(one), 201)


@routes.get("/pulls")
def list_pulls() -> Response:
    found = [
        one
        for one in sorted(repository().issues.values(), key=lambda one: -one.number)
        if one.pull and matches(one, one.pull)
    ]
    return paged(found, shown)


def matches(one: Issue, pull: Pull) -> bool:
    ask = request.args
    head = ask.get("head", "").removeprefix(f"{repository().owner.login}:")
    return (
        ask.get("state", "open") in (one.state, "all")
        and ask.get("base", pull.base) == pull.base
        and head in ("", pull.head)
        and ask.get("poster", one.user.login) == one.user.login
    )


@routes.get("/pulls/<int:number>")
def get_pull(number: int) -> Response:
    return answer(shown(pull_of(number)[0]))


@routes.get("/pulls/<base>/<path:head>")
def by_branches(base: str, head: str) -> Response:
    one = pulls.find(repository(), base, head.removeprefix(f"{repository().owner.login}:"))
    if one is None:
        raise ApiError(404)
    return answer(shown(one))


@routes.patch("/pulls/<int:number>")
def edit(number: int) -> Response:
    (one, pull), order, user, repo = pull_of(number), json_body(), me(), repository()
    if one.user is not user:
        require("write")
    if pull.merged and order.get("state"):
        raise ApiError(412, "cannot change state of this pull request, it is merged")
    issues.edit(store(), repo, one, user, order.get("title"), order.get("body"))
    if order.get("assignees") is not None:
        issues.assign(store(), repo, one, user, users(order["assignees"]))
    if order.get("labels") is not None and store().may(user, "write", repo):
        issues.set_labels(store(), repo, one, user, [each for each in repo.labels if each.id in order["labels"]])
    if order.get("state") == "open" and one.state == "closed":
        may_reopen(one, pull)
    if order.get("state"):
        issues.set_state(store(), repo, one, user, order["state"])
    return answer(shown(one), 201)


def may_reopen(one: Issue, pull: Pull) -> None:
    if not git_commands.branch(repository().path, pull.head):
        raise ApiError(422, "the head branch is gone")
    if pulls.find(repository(), pull.base, pull.head, only_open=True):
        raise ApiError(409, "another open pull request has these branches")


@routes.get("/pulls/<int:number>/commits")
def list_commits(number: int) -> Response:
    _, pull = pull_of(number)
    found = commits.between(repository(), pull.merge_base, pull.head_sha)
    return paged(found, lambda one: commits.in_api(store(), repository(), one))


@routes.get("/pulls/<int:number>/files")
def list_files(number: int) -> Response:
    _, pull = pull_of(number)
    path, old, new = repository().path, pull.merge_base, pull.head_sha
    names = git_commands.text(path, "diff", "--name-status", "--no-renames", "-z", old, new).split("\0")
    letters = dict(zip(names[1::2], names[0::2], strict=False))
    moved = git_commands.renames(path, old, new)
    rows = [row for row in git_commands.numstat(path, old, new) if row[2] not in moved.values()]
    return paged(rows, lambda row: file_shown(row, letters.get(row[2], "M"), new, moved.get(row[2])))


def file_shown(row: tuple[int, int, str], letter: str, sha: str, before: str | None = None) -> Json:
    additions, deletions, name = row
    web, api = repository_json.html(store(), repository()), f"{store().url}/api/v1/repos/{repository().full_name}"
    return ({"previous_filename": before} if before else {}) | {
        "filename": name,
        "status": "renamed" if before else {"A": "added", "D": "deleted"}.get(letter, "changed"),
        "additions": additions,
        "deletions": deletions,
        "changes": additions + deletions,
        "html_url": f"{web}/src/commit/{sha}/{name}",
        "contents_url": f"{api}/contents/{name}?ref={sha}",
        "raw_url": f"{web}/raw/commit/{sha}/{name}",
    }


@routes.get("/pulls/<int:number>.diff")
@routes.get("/pulls/<int:number>.patch", endpoint="patch")
def diff(number: int) -> Response:
    _, pull = pull_of(number)
    range_ = f"{pull.merge_base}..{pull.head_sha}"
    args = ["diff", range_] if request.endpoint == "pulls.diff" else ["format-patch", "--stdout", range_]
    return Response(git_commands.run(repository().path, *args), mimetype="text/plain")


@routes.get("/pulls/<int:number>/merge")
def is_merged(number: int) -> Response:
    if not pull_of(number)[1].merged:
        raise ApiError(404)
    return no_content()


@routes.post("/pulls/<int:number>/merge")
def merge(number: int) -> Response:
    one, _ = pull_of(number)
    order = json_body("Do")
    if not store().may(me(), "write", repository()):
        raise ApiError(405, "User not allowed to merge PR")
    merges.merge(store(), repository(), one, me(), order)
    return no_content(200)

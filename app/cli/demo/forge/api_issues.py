"""REST: issues, their comments, their timeline, and reactions."""

from __future__ import annotations

from flask import Response, request

from . import issue_json, issues
from .api import (
    ApiError,
    answer,
    comment_of,
    for_repositories,
    in_time,
    issue_of,
    json_body,
    me,
    no_content,
    paged,
    repository,
    require,
    store,
    users,
)
from .models import Comment, Issue, Json

routes = for_repositories("issues")
REACTIONS = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")


def shown(one: Issue) -> Json:
    return issue_json.issue(store(), repository(), one)


def comment_shown(one: Issue, line: Comment) -> Json:
    return issue_json.comment(store(), repository(), one, line)


@routes.post("/issues")
def open_issue() -> Response:
    order, user = json_body("title"), me()
    writer = store().may(user, "write", repository())
    ids = order.get("labels") or []
    labels = [label for label in repository().labels if label.id in ids] if writer else []
    names = (order.get("assignees") or []) + ([order["assignee"]] if order.get("assignee") else [])
    one = issues.open_issue(
        store(),
        repository(),
        user,
        order["title"],
        order.get("body") or "",
        labels,
        users(list(dict.fromkeys(names))) if writer else [],
    )
    if order.get("closed") and writer:
        issues.set_state(store(), repository(), one, user, "closed")
    return answer(shown(one), 201)


@routes.get("/issues")
def list_issues() -> Response:
    found = [one for one in sorted(repository().issues.values(), key=lambda one: -one.number) if matches(one)]
    if request.args.get("sort") in ("recentupdate", "leastupdate"):
        found.sort(key=lambda one: one.updated, reverse=request.args["sort"] == "recentupdate")
    return paged(in_time(found), shown)


def matches(one: Issue) -> bool:
    ask = request.args
    names = {name for name in ask.get("labels", "").split(",") if name}
    return (
        ask.get("state", "open") in (one.state, "all")
        and ask.get("type", "") in ("", "pulls" if one.pull else "issues")
        and names <= {label.name for label in one.labels}
        and ask.get("created_by", one.user.login) == one.user.login
        and ask.get("q", "").lower() in f"{one.title} {one.body}".lower()
        and (not ask.get("assigned_by") or ask["assigned_by"] in [user.login for user in one.assignees])
    )


@routes.get("/issues/<int:number>")
def get_issue(number: int) -> Response:
    return answer(shown(issue_of(number)))


@routes.patch("/issues/<int:number>")
def edit_issue(number: int) -> Response:
    one, order, user = issue_of(number), json_body(), me()
    if one.user is not user:
        require("write")
    if one.pull and one.pull.merged and order.get("state") == "open":
        raise ApiError(412, "cannot change state of this issue or pull request")
    issues.edit(store(), repository(), one, user, order.get("title"), order.get("body"))
    if order.get("assignees") is not None:
        issues.assign(store(), repository(), one, require("write"), users(order["assignees"]))
    if order.get("state"):
        issues.set_state(store(), repository(), one, user, order["state"])
    return answer(shown(one), 201)


@routes.get("/issues/<int:number>/comments")
def list_comments(number: int) -> Response:
    """Not paginated: everything, or what ?since= and ?before= leave."""
    one = issue_of(number)
    found = in_time(one.comments)
    made = answer([comment_shown(one, line) for line in found])
    made.headers["X-Total-Count"] = str(len(found))
    return made


@routes.post("/issues/<int:number>/comments")
def say(number: int) -> Response:
    one, order = issue_of(number), json_body("body")
    if one.locked:
        require("write", "the issue is locked")
    return answer(comment_shown(one, issues.say(store(), repository(), one, me(), order["body"])), 201)


@routes.get("/issues/comments")
def list_all_comments() -> Response:
    pairs = {line.id: one for one in repository().issues.values() for line in one.comments}
    lines = [line for one in repository().issues.values() for line in one.comments]
    found = in_time(sorted(lines, key=lambda line: line.id))
    return paged(found, lambda line: comment_shown(pairs[line.id], line))


@routes.get("/issues/comments/<int:number>")
def get_comment(number: int) -> Response:
    return answer(comment_shown(*comment_of(number)))


@routes.patch("/issues/comments/<int:number>")
def edit_comment(number: int) -> Response:
    one, line = comment_of(number)
    user = me() if line.user is me() else require("write")
    issues.edit_comment(store(), repository(), one, line, user, json_body("body")["body"])
    return answer(comment_shown(one, line))


@routes.delete("/issues/comments/<int:number>")
def delete_comment(number: int) -> Response:
    one, line = comment_of(number)
    user = me() if line.user is me() else require("write")
    issues.delete_comment(store(), repository(), one, line, user)
    return no_content()


@routes.get("/issues/<int:number>/timeline")
def timeline(number: int) -> Response:
    """A page says how many entries it has itself, not how many there are; one without any is `null`."""
    one = issue_of(number)
    made = paged(in_time(one.timeline), lambda line: issue_json.timeline(store(), repository(), one, line))
    entries = made.get_json()
    made = answer(entries or None)
    made.headers["X-Total-Count"] = str(len(entries))
    return made


@routes.route("/issues/comments/<int:number>/reactions", methods=["GET", "POST", "DELETE"])
def comment_reactions(number: int) -> Response:
    return react(comment_of(number)[1])


@routes.route("/issues/<int:number>/reactions", methods=["GET", "POST", "DELETE"])
def issue_reactions(number: int) -> Response:
    return react(issue_of(number))


def react(to: Issue | Comment) -> Response:
    if request.method == "GET":
        return answer([issue_json.reaction(store(), each) for each in to.reactions])
    content, user = json_body("content")["content"], me()
    if content not in REACTIONS:
        raise ApiError(403, f"'{content}' is not an allowed reaction")
    there = next((each for each in to.reactions if each[:2] == (user, content)), None)
    if request.method == "DELETE":
        to.reactions = [each for each in to.reactions if each is not there]
        return no_content(200)
    if there is None:
        to.reactions.append((user, content, store().now()))
    return answer(issue_json.reaction(store(), there or to.reactions[-1]), 200 if there else 201)

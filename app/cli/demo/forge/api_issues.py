"""REST: issues, their comments, their timeline, and reactions."""

from __future__ import annotations

from flask import Response, request

from . import issues, talk
from .api import (
    Problem,
    answer,
    asked,
    comment_of,
    for_repositories,
    in_time,
    issue_of,
    me,
    need,
    nothing,
    paged,
    repository,
    users,
    world,
)
from .state import Comment, Issue, Json

routes = for_repositories("issues")
REACTIONS = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")


def shown(one: Issue) -> Json:
    return talk.issue(world(), repository(), one)


def comment_shown(one: Issue, line: Comment) -> Json:
    return talk.comment(world(), repository(), one, line)


@routes.post("/issues")
def open_issue() -> Response:
    order, user = asked("title"), me()
    writer = world().may(user, "write", repository())
    ids = order.get("labels") or []
    labels = [label for label in repository().labels if label.id in ids] if writer else []
    names = (order.get("assignees") or []) + ([order["assignee"]] if order.get("assignee") else [])
    one = issues.open_issue(
        world(),
        repository(),
        user,
        order["title"],
        order.get("body") or "",
        labels,
        users(list(dict.fromkeys(names))) if writer else [],
    )
    if order.get("closed") and writer:
        issues.set_state(world(), repository(), one, user, "closed")
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
    one, order, user = issue_of(number), asked(), me()
    if one.user is not user:
        need("write")
    if one.pull and one.pull.merged and order.get("state") == "open":
        raise Problem(412, "cannot change state of this issue or pull request")
    issues.edit(world(), repository(), one, user, order.get("title"), order.get("body"))
    if order.get("assignees") is not None:
        issues.assign(world(), repository(), one, need("write"), users(order["assignees"]))
    if order.get("state"):
        issues.set_state(world(), repository(), one, user, order["state"])
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
    one, order = issue_of(number), asked("body")
    if one.locked:
        need("write", "the issue is locked")
    return answer(comment_shown(one, issues.say(world(), repository(), one, me(), order["body"])), 201)


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
    user = me() if line.user is me() else need("write")
    issues.edit_comment(world(), repository(), one, line, user, asked("body")["body"])
    return answer(comment_shown(one, line))


@routes.delete("/issues/comments/<int:number>")
def delete_comment(number: int) -> Response:
    one, line = comment_of(number)
    user = me() if line.user is me() else need("write")
    issues.delete_comment(world(), repository(), one, line, user)
    return nothing()


@routes.get("/issues/<int:number>/timeline")
def timeline(number: int) -> Response:
    """A page says how many entries it has itself, not how many there are; one without any is `null`."""
    one = issue_of(number)
    made = paged(in_time(one.timeline), lambda line: talk.timeline(world(), repository(), one, line))
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
        return answer([talk.reaction(world(), each) for each in to.reactions])
    content, user = asked("content")["content"], me()
    if content not in REACTIONS:
        raise Problem(403, f"'{content}' is not an allowed reaction")
    there = next((each for each in to.reactions if each[:2] == (user, content)), None)
    if request.method == "DELETE":
        to.reactions = [each for each in to.reactions if each is not there]
        return nothing(200)
    if there is None:
        to.reactions.append((user, content, world().now()))
    return answer(talk.reaction(world(), there or to.reactions[-1]), 200 if there else 201)

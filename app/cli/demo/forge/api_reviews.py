"""REST: reviews, their line comments, and review requests."""

from __future__ import annotations

from flask import Response

from . import issue_json, pulls
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
    review_of,
    store,
    users,
)
from .models import Issue, Json, Review, ReviewComment

routes = for_repositories("reviews")
EVENTS = {
    "APPROVED": "APPROVED",
    "APPROVE": "APPROVED",
    "REQUEST_CHANGES": "REQUEST_CHANGES",
    "COMMENT": "COMMENT",
    "PENDING": "PENDING",
    "": "PENDING",
}


def shown(one: Issue, review: Review) -> Json:
    return issue_json.review(store(), repository(), one, review)


def note_shown(one: Issue, review: Review, note: ReviewComment) -> Json:
    return issue_json.review_comment(store(), repository(), one, review, note)


@routes.get("/pulls/<int:number>/reviews")
def list_reviews(number: int) -> Response:
    one, pull = pull_of(number)
    mine = [review for review in pull.reviews if review.state != "PENDING" or review.user is me()]
    return paged(mine, lambda review: shown(one, review))


@routes.post("/pulls/<int:number>/reviews")
def review(number: int) -> Response:
    one, _ = pull_of(number)
    order, user = json_body(), me()
    state = state_of(one, order)
    notes = order.get("comments") or []
    if state in ("COMMENT", "REQUEST_CHANGES") and not (order.get("body") or notes):
        raise ApiError(422, f"review event {state} need body or comments")
    made = pulls.review(
        store(), repository(), one, user, state, order.get("body") or "", notes, order.get("commit_id") or ""
    )
    return answer(shown(one, made))


def state_of(one: Issue, order: Json) -> str:
    state = EVENTS.get(order.get("event") or "")
    if state is None:
        raise ApiError(422, f"unknown review event {order['event']}")
    if state in ("APPROVED", "REQUEST_CHANGES") and one.user is me():
        raise ApiError(422, "approve or reject your own pull is not allowed")
    return state


@routes.get("/pulls/<int:number>/reviews/<int:review_id>")
def get_review(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    return answer(shown(one, review_of(pull, review_id)))


@routes.post("/pulls/<int:number>/reviews/<int:review_id>")
def submit(number: int, review_id: int) -> Response:
    """Send off a pending review."""
    one, pull = pull_of(number)
    this, order = review_of(pull, review_id), json_body("event")
    if this.state != "PENDING" or this.user is not me():
        raise ApiError(422, "only a pending review of your own can be submitted")
    this.state, this.body = state_of(one, order), order.get("body") or this.body
    this.submitted = store().touch(repository(), one)
    this.official = pulls.is_official(store(), repository(), me(), this.state)
    pulls.announce_review(store(), repository(), one, this)
    return answer(shown(one, this))


@routes.delete("/pulls/<int:number>/reviews/<int:review_id>")
def delete(number: int, review_id: int) -> Response:
    _, pull = pull_of(number)
    this = review_of(pull, review_id)
    if this.user is not me():
        require("admin", "only the reviewer or an admin may delete a review")
    pull.reviews.remove(this)
    return no_content()


@routes.get("/pulls/<int:number>/reviews/<int:review_id>/comments")
def list_notes(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    this = review_of(pull, review_id)
    return answer([note_shown(one, this, note) for note in this.comments])


@routes.post("/pulls/<int:number>/reviews/<int:review_id>/comments")
def answer_to(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    this, order = review_of(pull, review_id), json_body()
    line = int(order.get("new_position") or 0)
    note = pulls.answer_note(store(), pull, this, me(), order.get("path") or "", line, order.get("body") or "")
    return answer(note_shown(one, this, note))


@routes.post("/pulls/<int:number>/reviews/<int:review_id>/dismissals")
def dismiss(number: int, review_id: int) -> Response:
    """Sends nothing, as in Forgejo."""
    one, pull = pull_of(number)
    this = review_of(pull, review_id)
    require("admin", "must be repo admin")
    this.dismissed = True
    store().touch(repository(), one)
    return answer(shown(one, this))


@routes.post("/pulls/<int:number>/reviews/<int:review_id>/undismissals")
def undismiss(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    this = review_of(pull, review_id)
    require("admin", "must be repo admin")
    this.dismissed = False
    store().touch(repository(), one)
    return answer(shown(one, this))


@routes.post("/pulls/<int:number>/requested_reviewers")
def ask(number: int) -> Response:
    one, _ = pull_of(number)
    reviewers = users(json_body().get("reviewers") or [])
    if one.user in reviewers:
        raise ApiError(422, "poster of pr can't be reviewer")
    if one.user is not me():
        require("write")
    made = pulls.ask(store(), repository(), one, me(), reviewers)
    return answer([shown(one, review) for review in made], 201)


@routes.delete("/pulls/<int:number>/requested_reviewers")
def unask(number: int) -> Response:
    one, _ = pull_of(number)
    reviewers = users(json_body().get("reviewers") or [])
    if one.user is not me():
        require("write")
    pulls.unask(store(), repository(), one, me(), reviewers)
    return no_content()

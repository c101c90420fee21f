"""REST: reviews, the notes in them, and who was asked for one."""

from __future__ import annotations

from flask import Response

from . import pulls, talk
from .api import (
    Problem,
    answer,
    asked,
    for_repositories,
    me,
    need,
    nothing,
    paged,
    pull_of,
    repository,
    review_of,
    users,
    world,
)
from .state import Issue, Json, Review, ReviewComment

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
    return talk.review(world(), repository(), one, review)


def note_shown(one: Issue, review: Review, note: ReviewComment) -> Json:
    return talk.review_comment(world(), repository(), one, review, note)


@routes.get("/pulls/<int:number>/reviews")
def list_reviews(number: int) -> Response:
    one, pull = pull_of(number)
    mine = [review for review in pull.reviews if review.state != "PENDING" or review.user is me()]
    return paged(mine, lambda review: shown(one, review))


@routes.post("/pulls/<int:number>/reviews")
def review(number: int) -> Response:
    one, _ = pull_of(number)
    order, user = asked(), me()
    state = state_of(one, order)
    notes = order.get("comments") or []
    if state in ("COMMENT", "REQUEST_CHANGES") and not (order.get("body") or notes):
        raise Problem(422, f"review event {state} need body or comments")
    made = pulls.review(
        world(), repository(), one, user, state, order.get("body") or "", notes, order.get("commit_id") or ""
    )
    return answer(shown(one, made))


def state_of(one: Issue, order: Json) -> str:
    state = EVENTS.get(order.get("event") or "")
    if state is None:
        raise Problem(422, f"unknown review event {order['event']}")
    if state in ("APPROVED", "REQUEST_CHANGES") and one.user is me():
        raise Problem(422, "approve or reject your own pull is not allowed")
    return state


@routes.get("/pulls/<int:number>/reviews/<int:review_id>")
def get_review(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    return answer(shown(one, review_of(pull, review_id)))


@routes.post("/pulls/<int:number>/reviews/<int:review_id>")
def submit(number: int, review_id: int) -> Response:
    """Send off a pending review."""
    one, pull = pull_of(number)
    this, order = review_of(pull, review_id), asked("event")
    if this.state != "PENDING" or this.user is not me():
        raise Problem(422, "only a pending review of your own can be submitted")
    this.state, this.body = state_of(one, order), order.get("body") or this.body
    this.submitted = world().touch(repository(), one)
    this.official = pulls.is_official(world(), repository(), me(), this.state)
    pulls.announce_review(world(), repository(), one, this)
    return answer(shown(one, this))


@routes.delete("/pulls/<int:number>/reviews/<int:review_id>")
def delete(number: int, review_id: int) -> Response:
    _, pull = pull_of(number)
    this = review_of(pull, review_id)
    if this.user is not me():
        need("admin", "only the reviewer or an admin may delete a review")
    pull.reviews.remove(this)
    return nothing()


@routes.get("/pulls/<int:number>/reviews/<int:review_id>/comments")
def list_notes(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    this = review_of(pull, review_id)
    return answer([note_shown(one, this, note) for note in this.comments])


@routes.post("/pulls/<int:number>/reviews/<int:review_id>/comments")
def answer_to(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    this, order = review_of(pull, review_id), asked()
    line = int(order.get("new_position") or 0)
    note = pulls.answer_note(world(), pull, this, me(), order.get("path") or "", line, order.get("body") or "")
    return answer(note_shown(one, this, note))


@routes.post("/pulls/<int:number>/reviews/<int:review_id>/dismissals")
def dismiss(number: int, review_id: int) -> Response:
    """Sends nothing, as in Forgejo."""
    one, pull = pull_of(number)
    this = review_of(pull, review_id)
    need("admin", "must be repo admin")
    this.dismissed = True
    world().touch(repository(), one)
    return answer(shown(one, this))


@routes.post("/pulls/<int:number>/reviews/<int:review_id>/undismissals")
def undismiss(number: int, review_id: int) -> Response:
    one, pull = pull_of(number)
    this = review_of(pull, review_id)
    need("admin", "must be repo admin")
    this.dismissed = False
    world().touch(repository(), one)
    return answer(shown(one, this))


@routes.post("/pulls/<int:number>/requested_reviewers")
def ask(number: int) -> Response:
    one, _ = pull_of(number)
    reviewers = users(asked().get("reviewers") or [])
    if one.user in reviewers:
        raise Problem(422, "poster of pr can't be reviewer")
    if one.user is not me():
        need("write")
    made = pulls.ask(world(), repository(), one, me(), reviewers)
    return answer([shown(one, review) for review in made], 201)


@routes.delete("/pulls/<int:number>/requested_reviewers")
def unask(number: int) -> Response:
    one, _ = pull_of(number)
    reviewers = users(asked().get("reviewers") or [])
    if one.user is not me():
        need("write")
    pulls.unask(world(), repository(), one, me(), reviewers)
    return nothing()

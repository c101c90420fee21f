"""REST: the labels of a repository, and the labels on an issue."""

from __future__ import annotations

import re

from flask import Response

from . import issues, repository_json
from .api import (
    ApiError,
    answer,
    for_repositories,
    issue_of,
    json_body,
    no_content,
    paged,
    repository,
    require,
    store,
)
from .models import Issue, Json, Label

routes = for_repositories("labels")


def shown(label: Label) -> Json:
    return repository_json.label(store(), repository(), label)


def label_of(number: int) -> Label:
    for label in repository().labels:
        if label.id == number:
            return label
    raise ApiError(404)


def colour(text: str) -> str:
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        raise ApiError(422, f"bad color {text}: it should be like #0e8a16")
    return text.lstrip("#").lower()


@routes.get("/labels")
def list_labels() -> Response:
    return paged(sorted(repository().labels, key=lambda label: label.name), shown)


@routes.post("/labels")
def make() -> Response:
    """Names are not unique: asked twice, there are two."""
    order = json_body("name", "color")
    require("write")
    label = store().add_label(repository(), order["name"], colour(order["color"]), bool(order.get("exclusive")))
    label.description = order.get("description") or ""
    return answer(shown(label), 201)


@routes.get("/labels/<int:number>")
def get_label(number: int) -> Response:
    return answer(shown(label_of(number)))


@routes.patch("/labels/<int:number>")
def edit(number: int) -> Response:
    label, order = label_of(number), json_body()
    require("write")
    for name in ("name", "description", "exclusive", "is_archived"):
        if order.get(name) is not None:
            setattr(label, name, order[name])
    if order.get("color"):
        label.color = colour(order["color"])
    return answer(shown(label))


@routes.delete("/labels/<int:number>")
def delete(number: int) -> Response:
    label = label_of(number)
    require("write")
    repository().labels.remove(label)
    for one in repository().issues.values():
        one.labels = [each for each in one.labels if each is not label]
    return no_content()


@routes.get("/issues/<int:number>/labels")
def on_issue(number: int) -> Response:
    return all_of(issue_of(number))


@routes.post("/issues/<int:number>/labels")
def add(number: int) -> Response:
    one, user = issue_of(number), require("write", "write permission is required")
    wanted = named()
    if wanted:
        issues.add_labels(store(), repository(), one, user, wanted)
    return all_of(one)


@routes.put("/issues/<int:number>/labels")
def replace(number: int) -> Response:
    one, user = issue_of(number), require("write", "write permission is required")
    issues.set_labels(store(), repository(), one, user, named())
    return all_of(one)


@routes.delete("/issues/<int:number>/labels")
def clear(number: int) -> Response:
    issues.clear_labels(store(), repository(), issue_of(number), require("write"))
    return no_content()


@routes.delete("/issues/<int:number>/labels/<identifier>")
def take_off(number: int, identifier: str) -> Response:
    one, user = issue_of(number), require("write")
    found = [label for label in repository().labels if identifier in (label.name, str(label.id))]
    if not found:
        raise ApiError(422, "label does not exist")
    if found[0] in one.labels:
        issues.set_labels(store(), repository(), one, user, [each for each in one.labels if each is not found[0]])
    return no_content()


def all_of(one: Issue) -> Response:
    return answer([shown(label) for label in one.labels])


def named() -> list[Label]:
    """Ids or names, not both; what the repository does not have is dropped without a word."""
    asked_for = json_body().get("labels") or []
    if len({type(each) for each in asked_for}) > 1:
        raise ApiError(422, "labels should be all ids or all names")
    found: dict[object, Label] = {}
    for label in repository().labels:
        for key in (label.id, label.name):
            if key in asked_for:
                found.setdefault(key, label)
    return list(found.values())

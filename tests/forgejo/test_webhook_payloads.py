"""Deliveries read as hints: every kind that there is, and whatever is made of them."""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.forgejo.webhook_payloads import Hint, Unreadable, read
from tests.conftest import FakeClock
from tests.workshop import Workshop, signed

PAYLOADS = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
ALL = {one["file"]: one["x_forgejo_event_type"] for one in json.loads((PAYLOADS / "index.json").read_text())}
SAMPLES = {name: event for name, event in ALL.items() if event != "pull_request_label"}  # which says nothing to us
ODD: tuple[Any, ...] = (
    None,
    "",
    0,
    -1,
    2**63,
    10**40,
    1.5,
    True,
    [],
    {},
    "\x00",
    "\ud800",
    "x" * 5000,
    [[]],
    {"id": {}},
)


def hint(name: str) -> Hint:
    found = read(SAMPLES[name], (PAYLOADS / name).read_bytes())
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_says_where_to_look(name: str) -> None:
    found = hint(name)
    assert (found.repository_id, found.full_name) == (42, "acme/widgets")
    assert found.number in (None, 12, 13) and found.is_pull == (found.number == 13)
    assert found.number or found.branch or found.sha


def test_what_each_kind_says_beside() -> None:
    command = hint("issue_comment-created-command.json").said
    assert command is not None and command.may is True and command.text.startswith("/")
    assert hint("issue_comment-edited.json").said is None and hint("issue_comment-deleted.json").said is None
    assert hint("push-test-delivery.json").test and not hint("push-branch.json").test
    assert hint("delete-branch.json").branch == "task/12-fix-off-by-one"
    assert len(hint("action_run_failure.json").sha or "") == 40
    assert hint("pull_request-opened.json").echoes and not hint("issues-label_updated.json").echoes


def test_the_coarse_names_and_the_short_refs_of_others_are_read_too() -> None:
    reviewed = (PAYLOADS / "pull_request-reviewed-rejected.json").read_bytes()
    assert (read("pull_request_rejected", reviewed) or hint("issues-opened.json")).number == 13
    body = json.loads((PAYLOADS / "delete-branch.json").read_text())
    body["ref"] = "task/12-fix-off-by-one"
    assert (read("delete", json.dumps(body).encode()) or hint("issues-opened.json")).branch == "task/12-fix-off-by-one"
    body["ref_type"] = "tag"
    assert (read("delete", json.dumps(body).encode()) or hint("issues-opened.json")).branch is None


def mutations(name: str, count: int) -> Iterator[bytes]:
    """The sample with one thing changed, left out or added somewhere; the same ones each time."""
    chance = random.Random(name)
    for _ in range(count):
        body = json.loads((PAYLOADS / name).read_text())
        where = body
        while True:
            key = chance.choice(list(where))
            if isinstance(where[key], dict) and where[key] and chance.random() < 0.75:
                where = where[key]
                continue
            break
        if chance.random() < 0.3:
            del where[key]
        else:
            where[key] = chance.choice(ODD)
        where[f"new {chance.random()}"] = chance.choice(ODD)
        yield json.dumps(body).encode()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_whatever_is_made_of_it_is_a_hint_or_a_sentence(name: str) -> None:
    for body in mutations(name, 60):
        with contextlib.suppress(Unreadable):
            found = read(SAMPLES[name], body)
            assert found is not None and 0 < found.repository_id < 2**63


def test_brought_to_the_door_it_is_never_an_error_and_never_has_an_effect(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    before = workshop.task(number)
    for at, name in enumerate(sorted(SAMPLES) * 2):
        for body in mutations(f"{name}", 1 + at // len(SAMPLES)):
            headers = signed(body, SAMPLES[name], f"mutated-{at}-{hash(body)}")
            assert workshop.client.post("/webhooks/forgejo", data=body, headers=headers).status_code == 202
    for _ in range(4):
        while workshop.work():
            pass
        clock.pass_(300)
    assert {row["result"] for row in workshop.inbox()} <= {"applied", "ignored", "refused"}
    assert not any("broke" in (row["why"] or "") for row in workshop.inbox())
    assert workshop.tasks() == [before]

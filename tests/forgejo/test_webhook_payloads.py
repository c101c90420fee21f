"""Webhook deliveries become hints: every sample, and thousands of damaged ones."""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.forgejo.hints import Hint, parse_delivery
from app.forgejo.webhook_payloads import InvalidPayload
from tests.conftest import FakeClock
from tests.workshop import Workshop, signed

PAYLOADS = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
ALL = {one["file"]: one["x_forgejo_event_type"] for one in json.loads((PAYLOADS / "index.json").read_text())}
SAMPLES = {name: event for name, event in ALL.items() if event != "pull_request_label"}  # which we do not use
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
    found = parse_delivery(SAMPLES[name], (PAYLOADS / name).read_bytes())
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_gives_a_hint(name: str) -> None:
    found = hint(name)
    assert (found.repository_id, found.full_name) == (42, "acme/widgets")
    assert found.number in (None, 12, 13) and found.is_pull == (found.number == 13)
    assert found.number or found.branch or found.sha


def test_a_hint_has_the_details_of_its_event() -> None:
    command = hint("issue_comment-created-command.json").comment
    assert command is not None and command.may_write is True and command.text.startswith("/")
    assert hint("issue_comment-edited.json").comment is None and hint("issue_comment-deleted.json").comment is None
    assert hint("push-test-delivery.json").is_test and not hint("push-branch.json").is_test
    assert hint("delete-branch.json").branch == "task/12-fix-off-by-one"
    assert len(hint("action_run_failure.json").sha or "") == 40
    assert hint("pull_request-opened.json").own_counts and not hint("issues-label_updated.json").own_counts


def test_event_names_and_branch_names_of_other_forges_are_understood() -> None:
    reviewed = (PAYLOADS / "pull_request-reviewed-rejected.json").read_bytes()
    assert (parse_delivery("pull_request_rejected", reviewed) or hint("issues-opened.json")).number == 13
    body = json.loads((PAYLOADS / "delete-branch.json").read_text())
    body["ref"] = "task/12-fix-off-by-one"
    assert (
        parse_delivery("delete", json.dumps(body).encode()) or hint("issues-opened.json")
    ).branch == "task/12-fix-off-by-one"
    body["ref_type"] = "tag"
    assert (parse_delivery("delete", json.dumps(body).encode()) or hint("issues-opened.json")).branch is None


def mutations(name: str, count: int) -> Iterator[bytes]:
    """The sample with one field changed, removed or added. The same name gives the same mutations."""
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
def test_a_damaged_sample_gives_a_hint_or_an_invalid_payload(name: str) -> None:
    for body in mutations(name, 60):
        with contextlib.suppress(InvalidPayload):
            found = parse_delivery(SAMPLES[name], body)
            assert found is not None and 0 < found.repository_id < 2**63


def test_a_damaged_delivery_is_stored_and_changes_no_task(workshop: Workshop, clock: FakeClock) -> None:
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
    assert {row.result for row in workshop.inbox()} <= {"applied", "ignored", "refused"}
    assert not any("broke" in (row.why or "") for row in workshop.inbox())
    assert workshop.tasks() == [before]

"""Bodies of deliveries: every sample of Forgejo and Gitea, broken ones, and events that we do not use."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.task import State
from app.forgejo.signature import sign
from tests.workshop import SECRET, Workshop, signed

PAYLOADS = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
SAMPLES = json.loads((PAYLOADS / "index.json").read_text())
ADDRESS = "/webhooks/forgejo"
ISSUE = (PAYLOADS / "issues-opened.json").read_bytes()


@pytest.mark.parametrize("event", ["status", "fork", "wiki", "package", "", "ünknown", "x" * 300])
def test_an_event_that_we_do_not_use_is_stored_and_ignored(workshop: Workshop, event: str) -> None:
    assert workshop.client.post(ADDRESS, data=b"{}", headers=signed(b"{}", event)).status_code == 202
    workshop.work()
    assert [row.result for row in workshop.inbox()] == ["ignored"]


def _with(sample: bytes = ISSUE, **changes: Any) -> bytes:
    """A sample with these changes; `issue__number` is the number in the issue."""
    body = json.loads(sample)
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = body
        for name in way:
            inner = inner[name]
        inner[last] = value
    return json.dumps(body).encode()


PULL = _with((PAYLOADS / "pull_request-opened.json").read_bytes(), pull_request__head__ref="a\x00b")
LONE = PULL.replace(b"a\\u0000b", b"a\\ud800b")
BROKEN = {
    "no body": ("issues", b""),
    "not JSON": ("issues", b"{"),
    "a list": ("issues", b"[]"),
    "a number": ("issues", b"1"),
    "null": ("issues", b"null"),
    "an empty object": ("issues", b"{}"),
    "no issue": ("issues", _with(issue=None)),
    "an issue that is a text": ("issues", _with(issue="12")),
    "a number that is a text": ("issues", _with(issue__number="12")),
    "a negative number": ("issues", _with(issue__number=-1)),
    "no repository": ("issues", _with(repository=None)),
    "a repository without a name": ("issues", _with(repository__full_name=None)),
    "a name with a NUL": ("issues", _with(repository__full_name="acme/wid\x00gets")),
    "a name with a line end": ("issues", _with(repository__full_name="acme/widgets\n")),
    "a name with a way out": ("issues", _with(repository__full_name="acme/widgets/../../admin")),
    "a NUL in the raw body": ("issues", b'{"a": "\x00"}'),
    "invalid UTF-8": ("issues", b'{"a": "\xff\xfe"}'),
    "deep nesting": ("issues", b"[" * 100_000),
    "a branch with a NUL": ("pull_request", PULL),
    "a branch with half a character": ("pull_request", LONE),
    "a form": ("issues", b"payload=%7B%7D"),
}


@pytest.mark.parametrize(("event", "body"), BROKEN.values(), ids=BROKEN)
def test_an_invalid_body_is_stored_and_refused_with_a_reason(workshop: Workshop, event: str, body: bytes) -> None:
    assert workshop.client.post(ADDRESS, data=body, headers=signed(body, event)).status_code == 202
    workshop.work()
    [kept] = workshop.inbox()
    assert kept.result == "refused" and len(kept.why or "") > 10
    assert workshop.tasks() == []


@pytest.mark.parametrize("number", [10**12, 2**63, 10**30])
def test_an_issue_number_that_does_not_exist_is_looked_up(workshop: Workshop, number: int) -> None:
    body = _with(issue__number=number)
    assert workshop.client.post(ADDRESS, data=body, headers=signed(body)).status_code == 202
    workshop.work()
    assert workshop.inbox()[0].result in ("applied", "refused")
    assert workshop.tasks() == []


def test_an_invalid_delivery_does_not_delay_another(workshop: Workshop) -> None:
    for at, (event, body) in enumerate(BROKEN.values()):
        workshop.client.post(ADDRESS, data=body, headers=signed(body, event, f"bad-{at}"))
    number = workshop.open_issue()
    workshop.converge()
    assert workshop.task(number).live
    assert all(row.applied_at for row in workshop.inbox())


def as_forgejo(sample: dict[str, str]) -> dict[str, str]:
    return {"X-Forgejo-Event-Type": sample["x_forgejo_event_type"], "X-Forgejo-Event": sample["x_forgejo_event"]}


def as_gitea(sample: dict[str, str]) -> dict[str, str]:
    return {"X-Gitea-Event-Type": sample["x_forgejo_event_type"], "X-Gitea-Event": sample["x_forgejo_event"]}


def as_old_gitea(sample: dict[str, str]) -> dict[str, str]:
    """Old Gitea has only the Event header, in which `pull_request_comment` has two meanings."""
    return {"X-Gitea-Event": sample["x_forgejo_event"]}


@pytest.mark.parametrize("brand", [as_forgejo, as_gitea, as_old_gitea])
def test_every_sample_is_accepted_and_changes_no_other_task(workshop: Workshop, brand: Any) -> None:
    """The samples are about issue 12 and pull request 13, which this forge does not have."""
    number = workshop.running()
    before = workshop.task(number)
    for sample in SAMPLES:
        body = (PAYLOADS / sample["file"]).read_bytes()
        headers = brand(sample) | {"X-Gitea-Signature": sign(SECRET, body), "X-Gitea-Delivery": sample["file"]}
        assert workshop.client.post(ADDRESS, data=body, headers=headers).status_code == 202, sample
        workshop.converge()
        newest = workshop.inbox()[-1]  # a delivery about a branch may wait for its task
        assert newest.result in ("applied", "ignored") or str(newest.why).endswith(" yet"), sample
        assert workshop.tasks() == [before], sample


def test_gitea_deliveries_that_forgejo_does_not_send_have_no_wrong_effect(workshop: Workshop) -> None:
    """Gitea sends comments on pull requests without the pull request. We do not use its events of checks and jobs."""
    number, pull = workshop.in_review()
    workshop.comment(pull, "/cancel")
    workshop.forge.wait_for_deliveries()
    said = next(one for one in reversed(workshop.forge.deliveries) if one.event_type == "pull_request_comment")
    body = json.dumps({name: value for name, value in said.body.items() if name != "pull_request"}).encode()
    for kind in ("status", "workflow_run", "workflow_job", "pull_request_comment"):
        headers = {"X-Gitea-Event-Type": kind, "X-Gitea-Signature": sign(SECRET, body), "X-Gitea-Delivery": kind}
        assert workshop.client.post(ADDRESS, data=body, headers=headers).status_code == 202
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED
    assert [row.result for row in workshop.inbox() if row.event in ("status", "workflow_run", "workflow_job")] == [
        "ignored"
    ] * 3

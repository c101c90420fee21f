"""The webhook endpoint: deliveries are checked, stored raw and answered at once, never with a 5xx."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import broker
from app.domain.task import State
from app.forgejo import hooks
from app.forgejo.signature import sign
from app.services import replay
from app.services.forge import issues
from app.web import create_app
from tests.patience import patient
from tests.serving import client_of
from tests.workshop import NOWHERE, SECRET, Workshop, signed

PAYLOADS = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
SAMPLES = json.loads((PAYLOADS / "index.json").read_text())
ADDRESS = "/webhooks/forgejo"
ISSUE = (PAYLOADS / "issues-opened.json").read_bytes()


def test_the_raw_body_is_stored_before_the_answer(workshop: Workshop) -> None:
    answer = workshop.client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE))
    assert (answer.status_code, answer.json) == (202, {"result": "accepted", "delivery": "d-1"})
    [kept] = workshop.inbox()
    assert (kept.body, kept.event, kept.forge, kept.applied_at) == (ISSUE, "issues", "main", None)


def test_it_stands_under_the_base_of_the_api_too(client: FlaskClient) -> None:
    assert client.post(f"/api/v1{ADDRESS}", data=ISSUE, headers=signed(ISSUE)).status_code == 202


@pytest.mark.parametrize(
    "signature",
    [None, "", " ", "sha256=", "0" * 64, sign("wrong", ISSUE), f"sha256={sign('wrong', ISSUE)}", sign(SECRET, ISSUE + b" "), "é" * 64],
    ids=["missing", "empty", "blank", "prefix alone", "zeros", "wrong secret", "wrong with prefix", "of another body", "not ascii"],
)  # fmt: skip
def test_a_bad_signature_is_401_and_nothing_is_stored(workshop: Workshop, signature: str | None) -> None:
    headers = signed(ISSUE) | {"X-Forgejo-Signature": signature or ""}
    if signature is None:
        del headers["X-Forgejo-Signature"]
    answer = workshop.client.post(ADDRESS, data=ISSUE, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthorized")
    assert "signature" in answer.get_json()["error"] and workshop.inbox() == []


@pytest.mark.parametrize("name", ["X-Forgejo-Signature", "X-Gitea-Signature", "X-Hub-Signature-256"])
@pytest.mark.parametrize("form", ["{}", "sha256={}"])
def test_a_good_signature_is_taken_in_each_header_and_form(client: FlaskClient, name: str, form: str) -> None:
    headers = {"X-Forgejo-Event-Type": "issues", name: form.format(sign(SECRET, ISSUE))}
    assert client.post(ADDRESS, data=ISSUE, headers=headers).status_code == 202


def test_without_a_secret_of_our_own_nothing_is_let_in(workshop: Workshop) -> None:
    fleet = replace(workshop.fleet, config=replace(workshop.fleet.config, secrets={}))
    answer = client_of(fleet).post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=""))
    assert answer.status_code == 401


@pytest.mark.parametrize("apart", [" ", ",", ", ", "\n"])
def test_while_a_secret_is_replaced_the_old_and_the_new_are_both_good(workshop: Workshop, apart: str) -> None:
    secrets = {**workshop.fleet.config.secrets, "FLEET_WEBHOOK_SECRET": f"the-new-secret{apart}{SECRET}"}
    fleet = replace(workshop.fleet, config=replace(workshop.fleet.config, secrets=secrets))
    client = client_of(fleet)
    good = [client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=one)) for one in ("the-new-secret", SECRET)]
    bad = [
        client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=one)) for one in ("", "the-new", "other-secret")
    ]
    assert [answer.status_code for answer in good + bad] == [202, 202, 401, 401, 401]


def test_a_secret_with_a_comma_in_it_is_still_one(workshop: Workshop) -> None:
    secrets = {**workshop.fleet.config.secrets, "FLEET_WEBHOOK_SECRET": "a, b-secret"}
    client = client_of(replace(workshop.fleet, config=replace(workshop.fleet.config, secrets=secrets)))
    answers = [
        client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=one)) for one in ("a, b-secret", "b-secret")
    ]
    assert [answer.status_code for answer in answers] == [202, 401]


def test_a_form_is_refused_with_what_to_change(workshop: Workshop) -> None:
    answer = workshop.client.post(ADDRESS, data={"payload": ISSUE.decode()}, headers={"X-Forgejo-Signature": "x"})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid")
    assert "application/json" in answer.get_json()["error"] and workshop.inbox() == []


def test_a_test_delivery_is_taken_for_what_it_is(workshop: Workshop) -> None:
    workshop.forge.test_delivery("acme/widgets", "alice")
    workshop.converge()
    assert (workshop.inbox()[0].result, workshop.tasks()) == ("applied", [])
    assert "test delivery" in str(workshop.inbox()[0].why)


def test_an_organisations_hook_beside_the_repositorys_brings_everything_twice_and_does_no_harm(
    workshop: Workshop,
) -> None:
    order = {
        "type": "forgejo",
        "active": True,
        "events": list(hooks.SUBSCRIBED),
        "config": {"url": NOWHERE, "content_type": "json", "secret": SECRET},
    }
    workshop.people["alice"].post("/orgs/acme/hooks", json=order).raise_for_status()
    number, pull = workshop.in_review()
    comment = workshop.comment(number, "/status")
    workshop.converge()
    workshop.merge(pull)
    workshop.converge()
    assert workshop.task(number).state is State.COMPLETED
    assert len({row.delivery_id for row in workshop.inbox()}) == len(workshop.inbox())
    kinds = [text.rpartition("kind=")[2].removesuffix(" -->") for text in workshop.comments(number)]
    assert sorted(kinds) == ["receipt", "reply", "status"] and workshop.reactions(comment) == {"eyes", "rocket"}


def test_a_broker_that_hangs_holds_up_no_answer(workshop: Workshop) -> None:
    let_go = threading.Event()

    class Hanging:
        def soon(self) -> None:
            let_go.wait(patient(30))

    client = client_of(replace(workshop.fleet, nudge=Hanging()))
    answers = [client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, delivery=f"d-{at}")) for at in range(20)]
    assert {answer.status_code for answer in answers} == {202} and not let_go.is_set()
    let_go.set()


def test_the_same_delivery_a_hundred_times_at_once_is_one_row_and_one_task(workshop: Workshop) -> None:
    workshop.open_issue()
    workshop.forge.wait_for_deliveries()
    delivery = workshop.forge.deliveries[0]
    app = create_app(workshop.fleet)

    def bring(_: int) -> str:
        answer = app.test_client().post(ADDRESS, data=delivery.raw, headers=delivery.headers)
        return str(answer.get_json()["result"]) if answer.json else ""

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(bring, range(100)))
    assert sorted(answers) == ["accepted"] + ["duplicate"] * 99
    assert len(workshop.inbox()) == 1
    workshop.work()
    assert len(workshop.tasks()) == 1


def test_two_deliveries_of_one_issue_applied_at_once_make_one_task(workshop: Workshop) -> None:
    """Forgejo sends `opened` and `label_updated` together; two workers may take one each at the same time."""
    numbers = [workshop.open_issue() for _ in range(8)]
    workshop.carry()
    start = threading.Barrier(2)

    def sync(number: int) -> str:
        start.wait()
        repository = workshop.forge.repository("acme/widgets").id
        return issues.sync_issue(workshop.fleet, "main", "acme/widgets", repository, number)

    with ThreadPoolExecutor(2) as pool:
        for number in numbers:
            assert all(f"#{number}" in said for said in pool.map(sync, [number, number]))
    assert [task.issue_number for task in workshop.tasks()] == numbers
    assert replay.differences(workshop.fleet) == (8, [])


@pytest.mark.parametrize("event", ["status", "fork", "wiki", "package", "", "ünknown", "x" * 300])
def test_an_event_that_says_nothing_to_us_is_kept_and_ignored(workshop: Workshop, event: str) -> None:
    assert workshop.client.post(ADDRESS, data=b"{}", headers=signed(b"{}", event)).status_code == 202
    workshop.work()
    assert [row.result for row in workshop.inbox()] == ["ignored"]


def _with(**changes: Any) -> bytes:
    body = json.loads(ISSUE)
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = body
        for name in way:
            inner = inner[name]
        inner[last] = value
    return json.dumps(body).encode()


PULL = json.loads((PAYLOADS / "pull_request-opened.json").read_text())
PULL["pull_request"]["head"]["ref"] = "a\x00b"
LONE = json.dumps(PULL).encode().replace(b"a\\u0000b", b"a\\ud800b")
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
    "a branch with a NUL": ("pull_request", json.dumps(PULL).encode()),
    "a branch with half a character": ("pull_request", LONE),
    "a form": ("issues", b"payload=%7B%7D"),
}


@pytest.mark.parametrize(("event", "body"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_kept_and_refused_with_a_sentence(workshop: Workshop, event: str, body: bytes) -> None:
    assert workshop.client.post(ADDRESS, data=body, headers=signed(body, event)).status_code == 202
    workshop.work()
    [kept] = workshop.inbox()
    assert kept.result == "refused" and len(kept.why or "") > 10
    assert workshop.tasks() == []


@pytest.mark.parametrize("number", [10**12, 2**63, 10**30])
def test_a_number_that_no_issue_has_is_looked_for_and_not_found(workshop: Workshop, number: int) -> None:
    body = _with(issue__number=number)
    assert workshop.client.post(ADDRESS, data=body, headers=signed(body)).status_code == 202
    workshop.work()
    assert workshop.inbox()[0].result in ("applied", "refused")
    assert workshop.tasks() == []


def test_one_bad_delivery_keeps_no_other_waiting(workshop: Workshop) -> None:
    for at, (event, body) in enumerate(BROKEN.values()):
        workshop.client.post(ADDRESS, data=body, headers=signed(body, event, f"bad-{at}"))
    number = workshop.open_issue()
    workshop.converge()
    assert workshop.task(number).live
    assert all(row.applied_at for row in workshop.inbox())


def test_over_ten_mebibytes_is_413(workshop: Workshop) -> None:
    body = b" " * (10 * 1024 * 1024 + 1)
    answer = workshop.client.post(ADDRESS, data=body, headers=signed(body))
    assert (answer.status_code, answer.get_json()["code"]) == (413, "too_large")
    assert workshop.inbox() == []


def test_just_ten_mebibytes_are_taken(workshop: Workshop) -> None:
    body = b" " * (10 * 1024 * 1024)
    assert workshop.client.post(ADDRESS, data=body, headers=signed(body)).status_code == 202


def test_the_answer_does_not_need_the_broker(workshop: Workshop) -> None:
    away = replace(workshop.fleet, nudge=broker.Nudge("redis+socket:///nowhere/valkey.sock"))
    answer = client_of(away).post(ADDRESS, data=ISSUE, headers=signed(ISSUE))
    assert (answer.status_code, len(workshop.inbox())) == (202, 1)


def test_a_delivery_without_an_id_is_known_by_its_content(workshop: Workshop) -> None:
    headers = signed(ISSUE)
    del headers["X-Forgejo-Delivery"]
    results = [workshop.client.post(ADDRESS, data=ISSUE, headers=headers).get_json()["result"] for _ in range(2)]
    assert results == ["accepted", "duplicate"]


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_it_only_takes_what_is_posted(client: FlaskClient, method: str) -> None:
    answer = getattr(client, method)(ADDRESS)
    assert (answer.status_code, answer.get_json()["code"]) == (405, "invalid")


def as_forgejo(sample: dict[str, str]) -> dict[str, str]:
    return {"X-Forgejo-Event-Type": sample["x_forgejo_event_type"], "X-Forgejo-Event": sample["x_forgejo_event"]}


def as_gitea(sample: dict[str, str]) -> dict[str, str]:
    return {"X-Gitea-Event-Type": sample["x_forgejo_event_type"], "X-Gitea-Event": sample["x_forgejo_event"]}


def as_old_gitea(sample: dict[str, str]) -> dict[str, str]:
    """Old Gitea has only the Event header, in which `pull_request_comment` has two meanings."""
    return {"X-Gitea-Event": sample["x_forgejo_event"]}


@pytest.mark.parametrize("brand", [as_forgejo, as_gitea, as_old_gitea])
def test_every_kind_of_delivery_is_taken_and_moves_nothing_it_should_not(workshop: Workshop, brand: Any) -> None:
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


def test_what_gitea_sends_that_forgejo_does_not_is_kept_and_has_no_wrong_effect(workshop: Workshop) -> None:
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

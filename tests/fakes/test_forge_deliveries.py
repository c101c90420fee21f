"""The fake forge's webhooks go to the hooks that want them, and go wrong the way real ones do."""

from __future__ import annotations

import hmac
import json
import time
import urllib.parse

import httpx
import pytest

from app.cli.demo.forge.subscriptions import passes
from tests.patience import patient

from .conftest import SECRET, WIDGETS, Receiver, Town


def test_headers_and_both_signatures(hooked: Town, receiver: Receiver) -> None:
    hooked.alice.post(f"{WIDGETS}/issues", json={"title": "<b> & co"})
    hooked.forge.wait_for_deliveries()
    [(headers, body)] = receiver.got
    expected = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
    assert headers["X-Forgejo-Signature"] == headers["X-Gitea-Signature"] == expected
    assert headers["X-Hub-Signature-256"] == f"sha256={expected}"
    assert headers["X-GitHub-Event"] == headers["X-Gogs-Event-Type"] == "issues"
    assert b'\n  "number": 1,' in body
    assert b"\\u003cb\\u003e \\u0026 co" in body


def test_without_a_secret_the_signature_is_empty_and_form_wraps_the_json(town: Town, receiver: Receiver) -> None:
    config = {"url": receiver.url, "content_type": "form"}
    town.forge.add_hook("acme/widgets", town.tokens["alice"], "", config=config, authorization_header="Bearer a")
    town.alice.post(f"{WIDGETS}/issues", json={"title": "One"})
    town.forge.wait_for_deliveries()
    [(headers, body)] = receiver.got
    assert (headers["X-Forgejo-Signature"], headers["X-Hub-Signature"]) == ("", "sha1=")
    assert headers["Authorization"] == "Bearer a"
    [payload] = urllib.parse.parse_qs(body.decode())["payload"]
    assert json.loads(payload)["action"] == "opened"


def test_a_hook_is_off_unless_asked_for_and_loses_things_when_patched(town: Town, receiver: Receiver) -> None:
    order = {
        "type": "forgejo",
        "config": {"url": receiver.url, "content_type": "json", "secret": "x"},
        "events": ["issues", "pull_request_review_rejected", "action_run_failure", "unheard-of"],
        "authorization_header": "Bearer a",
    }
    made = town.alice.post(f"{WIDGETS}/hooks", json=order).json()
    assert (made["active"], len(made["events"])) == (False, 6)
    changed = town.alice.patch(f"{WIDGETS}/hooks/{made['id']}", json={"active": True}).json()
    assert changed["active"]
    assert changed["events"] == ["push", "action_run_failure"]
    assert changed["authorization_header"] == ""
    assert town.fleet.get(f"{WIDGETS}/hooks").status_code == 403
    assert town.alice.post(f"{WIDGETS}/hooks", json=order | {"config": {}}).status_code == 422
    town.forge.violations.clear()
    assert town.alice.delete(f"{WIDGETS}/hooks/{made['id']}").status_code == 204


def test_an_organisation_hook_and_a_repository_hook_both_hear_of_it(hooked: Town, receiver: Receiver) -> None:
    config = {"url": receiver.url, "content_type": "json"}
    order = {
        "type": "gitea",
        "active": True,
        "config": config,
        "events": ["create"],
        "branch_filter": "task/**",
    }
    assert hooked.alice.post("/orgs/acme/hooks", json=order).status_code == 201
    assert hooked.fleet.post("/orgs/acme/hooks", json=order).status_code == 403
    for name in ("task/1-a", "other"):
        hooked.fleet.post(f"{WIDGETS}/branches", json={"new_branch_name": name})
    hooked.forge.wait_for_deliveries()
    refs = [each.body["ref"] for each in hooked.forge.deliveries if each.event_type == "create"]
    assert sorted(refs) == ["refs/heads/other", "refs/heads/task/1-a", "task/1-a"]


def test_branch_filters() -> None:
    assert passes("{main,task/**}", "task/1/a")
    assert passes("{main,task/**}", "main")
    assert not passes("{main,task/**}", "other")


def test_deliveries_get_lost_doubled_late_and_shuffled(hooked: Town, receiver: Receiver) -> None:
    hooked.forge.faults.drop("issues/opened", times=1)
    hooked.alice.post(f"{WIDGETS}/issues", json={"title": "Lost"})
    assert (hooked.sent(), [each.kind for each in hooked.forge.dropped]) == ([], ["issues/opened"])
    hooked.forge.faults.double = True
    hooked.alice.post(f"{WIDGETS}/issues", json={"title": "Twice"})
    hooked.forge.wait_for_deliveries()
    one, two = hooked.forge.deliveries
    assert one.uuid == two.uuid
    hooked.forge.faults.clear()
    hooked.forge.deliver_again(0)
    hooked.forge.deliver_again(0, new_id=False)
    hooked.forge.wait_for_deliveries()
    assert [each.uuid == one.uuid for each in hooked.forge.deliveries] == [True, True, False, True]
    hooked.sent()
    hooked.forge.faults.shuffle = True
    for number in range(8):
        hooked.alice.post(f"{WIDGETS}/issues", json={"title": f"{number}"})
    assert hooked.sent() == ["issues/opened"] * 8
    hooked.forge.faults.webhooks_off = True
    hooked.alice.post(f"{WIDGETS}/issues", json={"title": "Unheard"})
    assert hooked.sent() == []


def test_one_attempt_whatever_comes_of_it(hooked: Town, receiver: Receiver) -> None:
    receiver.status = 500
    hooked.alice.post(f"{WIDGETS}/issues", json={"title": "One"})
    hooked.forge.wait_for_deliveries()
    assert [each.status for each in hooked.forge.deliveries] == [500]
    assert len(receiver.got) == 1


def test_the_api_goes_wrong_before_or_after_doing(town: Town) -> None:
    issues = f"{WIDGETS}/issues"
    town.forge.faults.next("POST", "/issues$", 502, times=2)
    town.forge.faults.next("POST", "/issues$", 429, retry_after=3)
    town.forge.faults.next("POST", "/issues$", "503-after-doing")
    got = [town.alice.post(issues, json={"title": "One"}) for _ in range(4)]
    assert [each.status_code for each in got] == [502, 502, 429, 503]
    assert got[2].headers["Retry-After"] == "3"
    assert len(town.alice.get(issues).json()) == 1
    for what, left in (("cut", 1), ("cut-after-doing", 2), ("hang-after-doing", 3)):
        town.forge.faults.next("POST", "/issues$", what)
        with pytest.raises(httpx.TransportError):
            town.alice.post(issues, json={"title": "Two"}, timeout=0.3)
        assert len(town.alice.get(issues).json()) == left


def test_answers_come_at_once_on_one_connection(town: Town) -> None:
    town.alice.get("/user")
    start = time.perf_counter()
    for _ in range(50):
        town.alice.get("/user")
    assert (time.perf_counter() - start) / 50 < patient(0.02)

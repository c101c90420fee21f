"""The signature of a delivery: wrong ones are refused, and each forge's secret is its own, also during a rotation."""

from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app.forgejo.signature import sign
from tests.web_process import client_of
from tests.workshop import SECRET, Workshop, signed

PAYLOADS = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
ADDRESS = "/webhooks/forgejo"
ISSUE = (PAYLOADS / "issues-opened.json").read_bytes()


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
def test_a_good_signature_is_accepted_in_each_header_and_form(client: FlaskClient, name: str, form: str) -> None:
    headers = {"X-Forgejo-Event-Type": "issues", name: form.format(sign(SECRET, ISSUE))}
    assert client.post(ADDRESS, data=ISSUE, headers=headers).status_code == 202


def test_without_a_secret_every_delivery_is_refused(workshop: Workshop) -> None:
    fleet = replace(workshop.fleet, config=replace(workshop.fleet.config, secrets={}))
    answer = client_of(fleet).post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=""))
    assert answer.status_code == 401


@pytest.mark.parametrize("apart", [" ", ",", ", ", "\n"])
def test_the_old_and_the_new_secret_are_both_good_during_a_rotation(workshop: Workshop, apart: str) -> None:
    secrets = {**workshop.fleet.config.secrets, "FLEET_WEBHOOK_SECRET": f"the-new-secret{apart}{SECRET}"}
    fleet = replace(workshop.fleet, config=replace(workshop.fleet.config, secrets=secrets))
    client = client_of(fleet)
    good = [client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=one)) for one in ("the-new-secret", SECRET)]
    bad = [
        client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=one)) for one in ("", "the-new", "other-secret")
    ]
    assert [answer.status_code for answer in good + bad] == [202, 202, 401, 401, 401]


def test_a_comma_in_a_secret_does_not_split_it_into_short_ones(workshop: Workshop) -> None:
    secrets = {**workshop.fleet.config.secrets, "FLEET_WEBHOOK_SECRET": "a, b-secret"}
    client = client_of(replace(workshop.fleet, config=replace(workshop.fleet.config, secrets=secrets)))
    answers = [
        client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, secret=one)) for one in ("a, b-secret", "b-secret")
    ]
    assert [answer.status_code for answer in answers] == [202, 401]

"""The webhook endpoint: deliveries are stored raw and answered at once, once each, never with a 5xx."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import broker
from app.domain.task import State
from app.forgejo import hooks
from app.services import replay
from app.services.forge import issues
from app.web import create_app
from tests.web_process import client_of
from tests.workshop import NOWHERE, SECRET, Workshop, signed

PAYLOADS = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
ADDRESS = "/webhooks/forgejo"
ISSUE = (PAYLOADS / "issues-opened.json").read_bytes()


def test_the_raw_body_is_stored_before_the_answer(workshop: Workshop) -> None:
    answer = workshop.client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE))
    assert (answer.status_code, answer.json) == (202, {"result": "accepted", "delivery": "d-1"})
    [kept] = workshop.inbox()
    assert (kept.body, kept.event, kept.forge, kept.applied_at) == (ISSUE, "issues", "main", None)


def test_the_endpoint_is_under_the_base_path_of_the_api_too(client: FlaskClient) -> None:
    assert client.post(f"/api/v1{ADDRESS}", data=ISSUE, headers=signed(ISSUE)).status_code == 202


def test_a_form_is_refused_with_the_setting_to_change(workshop: Workshop) -> None:
    answer = workshop.client.post(ADDRESS, data={"payload": ISSUE.decode()}, headers={"X-Forgejo-Signature": "x"})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid")
    assert "application/json" in answer.get_json()["error"] and workshop.inbox() == []


def test_a_test_delivery_is_recognised(workshop: Workshop) -> None:
    workshop.forge.test_delivery("acme/widgets", "alice")
    workshop.converge()
    assert (workshop.inbox()[0].result, workshop.tasks()) == ("applied", [])
    assert "test delivery" in str(workshop.inbox()[0].why)


def test_an_organisations_hook_beside_the_repositorys_does_no_harm(
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


def test_a_broker_that_hangs_does_not_delay_an_answer(workshop: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never answers
        nudge = broker.Nudge(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", away_secs=0)
        client = client_of(replace(workshop.fleet, nudge=nudge))
        answers = [client.post(ADDRESS, data=ISSUE, headers=signed(ISSUE, delivery=f"d-{at}")) for at in range(20)]
        waiting = [thread.name for thread in threading.enumerate()]
    assert {answer.status_code for answer in answers} == {202}
    assert "nudge" in waiting, "the broker has not answered yet"


def test_the_answer_does_not_need_the_broker(workshop: Workshop) -> None:
    away = replace(workshop.fleet, nudge=broker.Nudge("redis+socket:///nowhere/valkey.sock"))
    answer = client_of(away).post(ADDRESS, data=ISSUE, headers=signed(ISSUE))
    assert (answer.status_code, len(workshop.inbox())) == (202, 1)


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


def test_two_deliveries_of_one_issue_applied_at_once_create_one_task(workshop: Workshop) -> None:
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


def test_over_ten_mebibytes_is_413(workshop: Workshop) -> None:
    body = b" " * (10 * 1024 * 1024 + 1)
    answer = workshop.client.post(ADDRESS, data=body, headers=signed(body))
    assert (answer.status_code, answer.get_json()["code"]) == (413, "too_large")
    assert workshop.inbox() == []


def test_ten_mebibytes_are_accepted(workshop: Workshop) -> None:
    body = b" " * (10 * 1024 * 1024)
    assert workshop.client.post(ADDRESS, data=body, headers=signed(body)).status_code == 202


def test_a_repeated_delivery_without_an_id_is_recognised_by_its_body(workshop: Workshop) -> None:
    headers = signed(ISSUE)
    del headers["X-Forgejo-Delivery"]
    results = [workshop.client.post(ADDRESS, data=ISSUE, headers=headers).get_json()["result"] for _ in range(2)]
    assert results == ["accepted", "duplicate"]


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_other_methods_than_post_are_refused(client: FlaskClient, method: str) -> None:
    answer = getattr(client, method)(ADDRESS)
    assert (answer.status_code, answer.get_json()["code"]) == (405, "invalid")

"""Checks the operators' API for tasks: tokens, filters, invalid input, and one shape for every error."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.domain.lifecycle import Fact, FactKind
from app.ports import Fleet
from app.store import tasks
from tests.builders import AT, a_fact, a_stored_task
from tests.web_process import client_of

TASKS = "/api/v1/tasks"
ENDPOINTS = [
    ("GET", TASKS), ("POST", TASKS), ("GET", f"{TASKS}/acme/widgets%2312"),
    ("POST", f"{TASKS}/acme/widgets%2312/retry"), ("POST", f"{TASKS}/acme/widgets%2312/cancel"),
]  # fmt: skip
NEW = {"title": "Fix it", "requirements": "Now."}


@pytest.fixture
def task_id(fleet: Fleet) -> str:
    with fleet.engine.begin() as conn:
        return a_stored_task(conn).task_id


def assert_error(answer: Any, status: int, code: str, *words: str) -> None:
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert set(answer.get_json()) == {"error", "code"}
    assert all(word in answer.get_json()["error"] for word in words), answer.get_json()


@pytest.mark.parametrize(("method", "address"), ENDPOINTS)
@pytest.mark.parametrize("shown", [None, "Bearer ", "Bearer wrong", "Basic operator-token-of-the-test", "Bearer \xff"])
def test_without_the_operators_token_every_door_is_shut(
    fleet: Fleet, method: str, address: str, shown: str | None
) -> None:
    headers = {"Authorization": shown} if shown else {}
    assert_error(client_of(fleet).open(address, method=method, headers=headers), 401, "unauthorized")


def test_health_needs_no_token(fleet: Fleet) -> None:
    client = client_of(fleet)
    assert client.get("/healthz").text == client.get("/api/v1/healthz").text == "ok"
    assert client.get("/readyz").get_json() == {"database": "ok", "broker": "ok"}


@pytest.mark.parametrize("written", ["acme/widgets%2312", "acme%2Fwidgets%2312"])
def test_an_id_is_understood_with_its_slash_encoded_or_not(client: FlaskClient, task_id: str, written: str) -> None:
    answer = client.get(f"{TASKS}/{written}")
    assert answer.get_json()["task_id"] == task_id
    assert [event["fact"] for event in answer.get_json()["events"]] == ["requested"]
    assert "events" not in client.get(f"{TASKS}/{written}?events=false").get_json()


@pytest.mark.parametrize("written", ["nope%231", "..%2F..%2Fetc", "%25", "%23", "acme/widgets", "a" * 5000])
def test_an_unknown_id_is_404_in_the_contracts_shape(client: FlaskClient, written: str) -> None:
    assert_error(client.get(f"{TASKS}/{written}"), 404, "unknown")
    assert_error(client.post(f"{TASKS}/{written}/cancel"), 404, "unknown")


@pytest.mark.parametrize("address", [f"{TASKS}/a%00b", f"{TASKS}?repository=a%00b", f"{TASKS}?after=%00"])
def test_a_nul_in_an_address_is_the_callers_mistake(client: FlaskClient, address: str) -> None:
    assert_error(client.get(address), 400, "invalid", "NUL")


def test_lists_are_filtered_counted_and_paged(client: FlaskClient, fleet: Fleet) -> None:
    with fleet.engine.begin() as conn:
        for number in range(5):
            a_stored_task(conn, f"acme/widgets#{number + 1}")
    first = client.get(f"{TASKS}?limit=2&status=created")
    assert [task["issue"]["number"] for task in first.get_json()] == [5, 4]
    assert first.headers["X-Total-Count"] == "5"
    following = first.headers["Link"].split("<")[1].split(">")[0]
    assert [task["issue"]["number"] for task in client.get(following).get_json()] == [3, 2]
    assert client.get(f"{TASKS}?status=failed").get_json() == []


@pytest.mark.parametrize("query", ["status=nope", "limit=0", "limit=x", "limit=501", "execution_mode=x"])
def test_a_filter_that_cannot_be_is_named(client: FlaskClient, query: str) -> None:
    assert_error(client.get(f"{TASKS}?{query}"), 400, "invalid", query.split("=", maxsplit=1)[0])


def test_a_task_may_be_asked_for_without_an_issue(client: FlaskClient) -> None:
    made = client.post(
        TASKS, json=NEW | {"required_capabilities": ["agent:Rust"], "priority": "urgent", "colour": "red"}
    )
    assert made.status_code == 201
    task = made.get_json()
    assert (task["status"], task["source"], task["priority"]) == ("created", "api", "urgent")
    assert task["required_capabilities"] == ["rust"]
    assert task["task_id"].startswith("api#")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "title"), ({"title": "x"}, "requirements"), (NEW | {"title": 7}, "title"), (NEW | {"priority": "asap"}, "priority"),
        (NEW | {"max_retries": "2"}, "max_retries"), (NEW | {"repository": "no slash"}, "repository"),
        (NEW | {"repository": "not/declared"}, "not/declared"), (NEW | {"execution_mode": "x"}, "execution_mode"),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_or_wrong_is_named(client: FlaskClient, body: dict[str, Any], word: str) -> None:
    assert_error(client.post(TASKS, json=body), 400, "invalid", word)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"[" * 20_000])
def test_a_body_that_is_no_object_is_refused(client: FlaskClient, raw: bytes) -> None:
    assert_error(client.post(TASKS, data=raw, content_type="application/json"), 400, "invalid")


@pytest.mark.parametrize(
    "raw",
    [b'{"title": ' + b"9" * 5000 + b"}", b'{"title": "t", "requirements": "r", "required_capabilities": ["\\ud800"]}'],
)
def test_what_no_database_can_hold_is_the_callers_mistake(client: FlaskClient, raw: bytes) -> None:
    assert_error(client.post(TASKS, data=raw, content_type="application/json"), 400, "invalid")


def test_a_body_over_ten_mebibytes_is_too_large(client: FlaskClient) -> None:
    assert_error(client.post(TASKS, data=b" " * (10 * 2**20 + 1), content_type="application/json"), 413, "too_large")


def test_an_address_that_is_not_there_and_a_method_that_is_not_taken(client: FlaskClient) -> None:
    assert_error(client.get("/api/v2/nothing"), 404, "unknown")
    answer = client.delete(TASKS)
    assert (answer.status_code, answer.get_json()["code"]) == (405, "invalid")


def test_cancel_ends_a_task_once_and_retry_brings_it_back(client: FlaskClient, task_id: str) -> None:
    address = f"{TASKS}/acme/widgets%2312"
    assert client.post(f"{address}/cancel").get_json()["status"] == "cancelled"
    assert client.post(f"{address}/cancel").get_json()["status"] == "cancelled"
    assert client.post(f"{address}/retry").get_json()["status"] == "created"


def test_a_retry_that_has_no_effect_says_when_it_would(client: FlaskClient, fleet: Fleet, task_id: str) -> None:
    with fleet.engine.begin() as conn:
        task = tasks.find(conn, task_id)
        tasks.record(conn, task.id, Fact(FactKind.PLACED, {"host_id": "h", "agent_type": "c"}), AT)
        tasks.record(conn, task.id, a_fact(FactKind.STARTED, run=1), AT)
    assert_error(client.post(f"{TASKS}/acme/widgets%2312/retry"), 400, "invalid", "running", "failed")

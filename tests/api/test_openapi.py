"""The OpenAPI document says what the server does: schemathesis calls all of it, alone and in chains, and compares."""

import warnings
from functools import cache
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.ports import Fleet
from tests import servers
from tests.agent_client import Agent, an_agent
from tests.builders import a_stored_task, apply
from tests.web_process import application_of

DOCUMENT = "/api/v1/openapi.json"
TOKEN = {"Authorization": "Bearer operator-token-of-the-test"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
BOUNDED = settings(
    max_examples=15,
    deadline=None,
    stateful_step_count=8,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def house(fleet: Fleet) -> Flask:
    """The application, with some tasks, a host and an agent that holds one."""
    app = application_of(fleet)
    populate(app)
    return app


def populate(app: Flask) -> None:
    fleet: Fleet = app.extensions["fleet"]
    with fleet.engine.begin() as conn:
        apply(conn)
        for number in range(1, 6):
            a_stored_task(conn, f"acme/widgets#{number}", at=fleet.clock())
    app.extensions["holder"] = holder = an_agent(app.test_client())
    holder.take()


@cache
def document(house: Flask) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return schemathesis.openapi.from_wsgi(DOCUMENT, house, headers=TOKEN)


def who_may(house: Flask) -> list[dict[str, str]]:
    holder: Agent = house.extensions["holder"]
    return [TOKEN, {"Authorization": f"Bearer {holder.token}"}, {"Authorization": "Bearer enroll-token-of-the-test"}]


OPERATIONS = {
    "list_tasks", "create_task", "get_task", "retry_task", "cancel_task", "assign_task", "dequeue", "report_status", "write_log",
    "read_log", "complete_task", "post_receipt", "register", "heartbeat", "deregister", "list_agents", "list_hosts", "get_host",
    "drain", "resume", "healthz", "readyz", "receive_delivery",
}  # fmt: skip


@cache
def by_name(house: Flask) -> dict[str, Any]:
    operations = [one.ok() for one in document(house).get_all_operations()]
    return {one.definition.raw["operationId"]: one for one in operations}


def meant_well(case: Any) -> None:
    """With names that exist: chance alone would hardly ever find one."""
    if isinstance(case.body, dict) and "agent_id" in case.body:
        case.body |= {"agent_id": "a1"} | ({"lease": 1, "task_id": "acme/widgets#1"} if "lease" in case.body else {})
    if "task_id" in (case.path_parameters or {}):
        case.path_parameters["task_id"] = "acme%2Fwidgets%231"
    if "host_id" in (case.path_parameters or {}):
        case.path_parameters["host_id"] = "localhost"


def impatient(case: Any) -> None:
    """Nobody waits for work here: a wait that is allowed becomes none."""
    wait = case.body.get("wait_secs") if isinstance(case.body, dict) else None
    if isinstance(wait, int | float) and 0 < wait <= 30:
        case.body["wait_secs"] = 0


def test_every_operation_is_in_it(house: Flask) -> None:
    assert set(by_name(house)) == OPERATIONS


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_each_call_answers_as_described(house: Flask, name: str, mode: GenerationMode) -> None:
    operation = by_name(house)[name]
    if mode is GenerationMode.NEGATIVE and not operation.body and not operation.query and not operation.path_parameters:
        pytest.skip("it takes nothing that could be wrong")

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode), who=st.sampled_from(who_may(house)), real=st.booleans())
    def call(case: Any, who: dict[str, str], real: bool) -> None:
        impatient(case)
        if real:
            meant_well(case)
        case.call_and_validate(headers=who, checks=CHECKS)

    call()


CALLS_OF_AGENTS = ("dequeue", "heartbeat", "report_status", "write_log", "complete_task", "post_receipt")


def test_calls_in_chains_answer_as_described(house: Flask) -> None:
    class Chains(document(house).as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            """Each chain begins in the same house, so that one that failed can be walked again."""
            super().setup()
            servers.empty(house.extensions["fleet"].engine)
            populate(house)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            impatient(case)
            name = case.operation.definition.raw["operationId"]
            if name == "register":
                return {"headers": {"Authorization": "Bearer enroll-token-of-the-test"}}
            if name not in CALLS_OF_AGENTS:
                return {"headers": TOKEN}
            holder: Agent = house.extensions["holder"]
            if isinstance(case.body, dict):
                case.body["agent_id"] = holder.agent_id
            return {"headers": {"Authorization": f"Bearer {holder.token}"}}

        def validate_response(self, response: Any, case: Any, *_: Any, **__: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    Chains.run(settings=BOUNDED)


class TestTheReferencePage:
    def test_shows_every_call_to_whoever_has_a_token(self, house: Flask) -> None:
        page = house.test_client().get("/api/v1/docs", headers=TOKEN)
        assert page.mimetype == "text/html"
        assert all(f'id="{name}"' in page.text for name in OPERATIONS)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]

    def test_lets_a_browser_ask_for_the_token(self, house: Flask) -> None:
        refused = house.test_client().get("/api/v1/docs")
        assert (refused.status_code, refused.mimetype) == (401, "application/json")
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")
        assert house.test_client().get("/api/v1/docs", auth=("", "viewer-token-of-the-test")).status_code == 200

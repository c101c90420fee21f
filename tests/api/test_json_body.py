"""Sends invalid bodies and ids to a real web process: each answer has the error shape of the contract."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.ports import Fleet
from app.services.runs import expiry
from tests import servers
from tests.agent_client import BASE, ENROLL, Agent, an_agent
from tests.api.agent_api_setup import waiting
from tests.api.test_tasks import assert_error
from tests.web_process import OPERATOR, Web, web_process

MIB = 1 << 20
WRITES = [
    "/agents/register", "/agents/heartbeat", "/agents/deregister", "/tasks/dequeue", "/tasks/x%231/status", "/tasks/x%231/log",
    "/tasks/x%231/complete", "/receipts", "/tasks", "/tasks/x%231/assign",
]  # fmt: skip
BODIES = {
    "empty": b"", "a word": b"hello", "cut off": b'{"agent_id": "a1"', "a list": b"[1]", "null": b"null", "a number": b"7",
    "text": b'"x"', "not UTF-8": b'{"agent_id": "\xff\xfe"}', "UTF-16": '{"agent_id": "a1"}'.encode("utf-16"), "a BOM": b'\xef\xbb\xbf{"agent_id": "a1"}',
    "deep lists": b"[" * 100_000, "deep objects": b'{"a":' * 50_000, "deep and closed": b"[" * 900 + b"]" * 900,
    "NaN": b'{"agent_id": NaN}', "infinity": b'{"agent_id": -Infinity}', "beyond numbers": b'{"agent_id": 1e999}',
    "a huge number": b'{"agent_id": ' + b"9" * 5000 + b"}", "twice": b'{"agent_id": "a1", "agent_id": "a2"}',
    "two bodies": b'{"agent_id": "a1"}{"agent_id": "a2"}', "NUL": b'{"agent_id": "a\\u0000b"}', "bare NUL": b'{"agent_id": "a\x00b"}',
    "half a character": b'{"agent_id": "\\ud800"}', "a wrong type": b'{"agent_id": {"$gt": ""}}', "only NULs": b"\x00" * 100,
}  # fmt: skip
IDS = [
    "..", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "%252e%252e", "%23", "%25", "%2F", "%2523", "a%2F%2Fb%231", "a//b%231", ".%2F.", "%ff%fe",
    "a%0d%0aX-Injected:%201", "%00", "a%00b", "'%20OR%201=1--", "%F0%9F%92%A9%231", "x" * 4000, "owner/repo%2342%2Fevents", "%C0%AF", "a;b", "a%3Fb", "a%5Cb",
]  # fmt: skip


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    name = servers.fresh_name()
    servers.create(name)
    try:
        with web_process(servers.url(name)) as web:
            yield web
    finally:
        servers.drop(name)


def assert_shape(status: int, headers: dict[str, str], body: bytes, *expected: int) -> dict[str, str]:
    assert status in (expected or (400, 401, 403, 404, 405, 409, 413)), body[:300]
    assert headers["content-type"] == "application/json"
    told: dict[str, str] = json.loads(body)
    assert set(told) == {"error", "code"}
    assert not any(word in body for word in (b"Traceback", b"<html", b"<!doctype", b"psycopg", b"SELECT"))
    return told


def token_for(web: Web, path: str) -> str:
    if path == "/agents/register":
        return ENROLL
    return OPERATOR if path in ("/tasks", "/tasks/x%231/assign") else web.register("a1")


def posted(web: Web, path: str, token: str, body: bytes, kind: str = "application/json") -> Any:
    head = (
        f"POST {BASE}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return web.raw(head.encode(), body)


@pytest.mark.parametrize("path", WRITES)
def test_a_body_that_is_no_request_is_the_callers_mistake(web: Web, path: str) -> None:
    token = token_for(web, path)
    for name, body in BODIES.items():
        told = assert_shape(*posted(web, path, token, body))
        assert told["code"] == "invalid", (name, told)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", ""]
)
def test_a_body_that_does_not_say_it_is_json_is_told_so(web: Web, kind: str) -> None:
    told = assert_shape(*posted(web, "/agents/register", ENROLL, b'{"agent_id": "a1"}', kind), 400)
    assert "application/json" in told["error"]


@pytest.mark.parametrize("path", WRITES)
def test_whoever_shows_no_token_hears_that_before_the_body_is_read(web: Web, path: str) -> None:
    for body in (b"{", b"[" * 100_000, b'{"agent_id": NaN}'):
        assert_shape(*posted(web, path, "wrong", body), 401)


class TestTooLarge:
    def test_by_its_own_word_it_is_refused_before_it_is_sent(self, web: Web) -> None:
        head = (
            f"POST {BASE}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {20 * MIB}\r\nConnection: close\r\n\r\n"
        )
        assert assert_shape(*web.raw(head.encode()), 413)["code"] == "too_large"

    def test_in_pieces_without_a_length_it_is_refused_once_it_is_too_much(self, web: Web) -> None:
        head = (
            f"POST {BASE}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        piece = f"{MIB:x}\r\n".encode() + b" " * MIB + b"\r\n"
        assert assert_shape(*web.raw(head.encode(), piece * 11 + b"0\r\n\r\n"), 413)["code"] == "too_large"

    def test_the_web_process_does_not_grow_by_it(self, web: Web) -> None:
        import psutil

        worker = psutil.Process(web.pids()[-1])
        posted(web, "/tasks", OPERATOR, b" " * 9 * MIB)
        before = worker.memory_info().rss
        for _ in range(4):
            self.test_by_its_own_word_it_is_refused_before_it_is_sent(web)
        assert worker.memory_info().rss - before < 15 * MIB

    def test_a_delivery_too(self, web: Web) -> None:
        head = f"POST {BASE}/webhooks/forgejo HTTP/1.1\r\nHost: x\r\nContent-Length: {20 * MIB}\r\nConnection: close\r\n\r\n"
        assert_shape(*web.raw(head.encode()), 413)

    def test_what_is_just_not_too_large_is_taken(self, web: Web) -> None:
        task = {"title": "Large", "requirements": "x" * 900_000}
        assert web.call("POST", "/tasks", **task)[0] == 201


def test_a_good_body_in_pieces_without_a_length_is_understood(web: Web) -> None:
    head = (
        f"POST {BASE}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    pieces = [b'{"title": "In', b' pieces", "requirements": ""}']
    body = b"".join(f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in pieces) + b"0\r\n\r\n"
    status, _, answer = web.raw(head.encode(), body)
    assert (status, json.loads(answer)["title"]) == (201, "In pieces")


@pytest.mark.parametrize("written", IDS)
def test_an_id_that_is_none_is_the_callers_mistake_in_every_address(web: Web, written: str) -> None:
    token = web.register("a1")
    for method, verb, who, body in (
        ("GET", "", OPERATOR, b""), ("GET", "/log", OPERATOR, b""), ("POST", "/cancel", OPERATOR, b""), ("POST", "/retry", OPERATOR, b""),
        ("POST", "/assign", OPERATOR, b'{"agent_id": "a1"}'), ("POST", "/status", token, b'{"agent_id": "a1", "status": "running"}'),
        ("POST", "/complete", token, b'{"agent_id": "a1", "status": "failed"}'), ("POST", "/log", token, b'{"lease": 1, "offset": 0, "data": ""}'),
    ):  # fmt: skip
        head = (
            f"{method} {BASE}/tasks/{written}{verb} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        status, headers, answer = web.raw(head.encode(), body)
        told = assert_shape(status, headers, answer, 400, 404)
        assert told["code"] == ("invalid" if status == 400 else "unknown")
        assert "x-injected" not in headers


def test_names_that_are_none_are_refused_wherever_they_stand_in_a_body(web: Web) -> None:
    token = web.register("a1")
    for bad in ("", "a\x00b", "\ud800", "../../etc/passwd", "x" * 100_000, "a\r\nb", "💩"):
        for path, body in (
            ("/agents/heartbeat", {"agent_id": bad}),
            ("/receipts", {"agent_id": "a1", "task_id": bad, "status": "failed"}),
            ("/agents/register", {"agent_id": bad, "agent_type": "c", "hostname": "h", "capabilities": []}),
            ("/tasks/dequeue", {"agent_id": "a1", "capabilities": [bad]}),
        ):
            told = posted(web, path, ENROLL if path == "/agents/register" else token, json.dumps(body).encode())
            if not (path == "/tasks/dequeue" and bad == ""):
                assert_shape(*told, 400, 404)
        status, pulse = web.call(
            "POST", "/agents/heartbeat", token, agent_id="a1", tasks=[{"task_id": bad, "lease": 1}]
        )
        assert status in (200, 400)
        assert status == 400 or pulse["tasks"][0]["stop"] is True


class TestWhatIsStoredCanBeReadAgain:
    """What one agent says must not stand in the way of those who read it."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [("progress", [[[]]]), ("progress", {"a\x00": "b\x00"}), ("progress", "\ud800"), ("progress", 10**400),
         ("progress", 1.5e308), ("message", "half \ud83d"), ("message", "<script>\x1b[2J")],
    )  # fmt: skip
    def test_progress(self, client: FlaskClient, fleet: Fleet, field: str, value: Any) -> None:
        waiting(fleet)
        agent = an_agent(client)
        task = agent.take()
        answer = agent.say(task, "status", status="running", **{field: value})
        assert answer.status_code in (200, 400)
        assert client.get(f"{BASE}/tasks/acme%2Fwidgets%2312").status_code == 200

    def test_metadata_has_a_bound(self, client: FlaskClient) -> None:
        agent = an_agent(client)
        agent.token = ENROLL
        about = {"agent_type": "c", "hostname": "h", "capabilities": []}
        nested: Any = 1
        for _ in range(40):
            nested = [nested]
        assert_error(agent.post("/agents/register", **about, metadata={"x": nested}), 400, "invalid", "deep")
        assert_error(agent.post("/agents/register", **about, metadata={"x": "y" * 70_000}), 400, "invalid", "metadata")
        assert agent.post("/agents/register", **about, metadata={"x": [[1], {"y": None}]}).status_code == 200
        assert client.get(f"{BASE}/agents").get_json()[0]["metadata"] == {"x": [[1], {"y": None}]}

    @pytest.mark.parametrize(
        "at",
        [
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:59Z",
            "1999-01-01T00:00:00Z",
            "soon",
            "",
            7,
        ],
    )
    def test_a_moment_beyond_the_calendar_is_refused(self, client: FlaskClient, fleet: Fleet, at: Any) -> None:
        waiting(fleet)
        agent = an_agent(client)
        task = agent.take()
        answer = agent.say(task, "complete", status="failed", failure="limit", resets_at=at)
        assert_error(answer, 400, "invalid", "resets_at")
        expiry.expire_and_wake(fleet)
        assert client.get(f"{BASE}/tasks").get_json()[0]["status"] == "running"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cost_usd", 1e308),
            ("cost_usd", "1"),
            ("cost_usd", -1),
            ("input_tokens", "12"),
            ("input_tokens", 10**30),
            ("output_tokens", 1.5),
            ("cached_tokens", True),
        ],
    )
    def test_what_cannot_have_been_used_is_refused(
        self, client: FlaskClient, fleet: Fleet, name: str, value: Any
    ) -> None:
        waiting(fleet)
        agent = an_agent(client)
        task = agent.take()
        assert_error(agent.say(task, "complete", status="failed", usage={name: value}), 400, "invalid", name)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [("/tasks/dequeue", "wait_secs", "5"), ("/tasks/dequeue", "wait_secs", True), ("/tasks/dequeue", "wait_secs", -1), ("/tasks/dequeue", "max_tasks", 2.0),
     ("/tasks/dequeue", "max_tasks", 51), ("/tasks/dequeue", "max_tasks", 0), ("/tasks/dequeue", "capabilities", "python"), ("/tasks/dequeue", "capabilities", [1]),
     ("/tasks/x%231/status", "lease", "1"), ("/tasks/x%231/status", "lease", True), ("/tasks/x%231/status", "message", 7), ("/tasks/x%231/complete", "artifacts", {}),
     ("/tasks/x%231/complete", "duration_seconds", "3"), ("/tasks/x%231/complete", "duration_seconds", -1), ("/tasks/x%231/complete", "checks", "x"),
     ("/tasks/x%231/complete", "usage", []), ("/agents/heartbeat", "tasks", "x"), ("/agents/heartbeat", "tasks", [[]])],
)  # fmt: skip
def test_a_mistyped_field_is_named(client: FlaskClient, path: str, field: str, value: Any) -> None:
    agent: Agent = an_agent(client)
    body = {"status": "completed" if path.endswith("complete") else "running"} | {field: value}
    assert_error(agent.post(path, **body), 400, "invalid", field)


@pytest.mark.parametrize("value", ["yes", 1, 0, "true", None, []])
def test_yes_and_no_are_true_and_false(client: FlaskClient, value: Any) -> None:
    new = {"title": "x", "requirements": "y", "wants_pull_request": value}
    assert_error(client.post(f"{BASE}/tasks", json=new), 400, "invalid", "wants_pull_request")

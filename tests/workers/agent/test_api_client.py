"""The API client of the agent, against a real HTTP server that answers as a test wants."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from app.clis import catalog
from app.clis.template import CliTemplate
from app.domain.masking import Mask
from app.domain.run import Usage
from workers.agent.api_client import (
    LONGEST_PAUSE_SECS,
    ApiClient,
    RegistrationRefused,
    RequestRefused,
    ServerUnavailable,
)
from workers.agent.held_tasks import HeldTask, HeldTasks, Step
from workers.agent.local_runs import LocalRuns
from workers.agent.messages import Work
from workers.agent.state_dir import StateDir
from workers.agent.uploads import Uploads
from workers.protocol import LogPiece, RunStatus

REGISTERED = {"registry_token": "fresh", "heartbeat_interval_secs": 60, "offline_after_secs": 180}
NO_TOKEN = (401, {"error": "Show a valid token.", "code": "unauthorized"})


class Desk:
    """Answers each path with what was laid out for it, one after the other; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: dict[str, str] = {}
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                path = self.path.removeprefix("/api/v1")
                desk.asked.append((path, self.headers["Authorization"], body))
                status, said = desk.answers[path].pop(0)
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | desk.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.server.shutdown()
    desk.server.server_close()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.open()
    return state


def client(desk: Desk, state: StateDir, enrol_token: str | None = "enrol") -> ApiClient:
    return ApiClient(desk.url, state, {"agent_id": "a1", "capabilities": []}, enrol_token)


def test_a_token_that_is_not_valid_any_more_is_renewed_and_the_call_repeated(desk: Desk, state: StateDir) -> None:
    state.save_token("a1", "old")
    desk.answers = {
        "/tasks/x/status": [NO_TOKEN, (200, {"stop": False})],
        "/agents/register": [NO_TOKEN, (200, REGISTERED)],
    }
    assert client(desk, state).call_task("x", "status", {"lease": 1}) == {"stop": False}
    assert [(path, shown) for path, shown, _ in desk.asked] == [
        ("/tasks/x/status", "Bearer old"), ("/agents/register", "Bearer old"), ("/agents/register", "Bearer enrol"),
        ("/tasks/x/status", "Bearer fresh"),
    ]  # fmt: skip
    assert state.token() == "fresh"
    assert (state.path / "token").stat().st_mode & 0o777 == 0o600


def test_who_is_let_in_by_no_token_hears_the_servers_sentence(desk: Desk, state: StateDir) -> None:
    desk.answers = {"/agents/register": [(403, {"error": "The agent 'a1' was revoked.", "code": "forbidden"})]}
    with pytest.raises(RegistrationRefused, match="was revoked"):
        client(desk, state).register()
    with pytest.raises(RegistrationRefused, match="set FLEET_ENROLL_TOKEN"):
        client(desk, state, enrol_token=None).register()


def test_a_fleet_that_forgot_the_agent_is_told_again_who_it_is(desk: Desk, state: StateDir) -> None:
    unknown = (404, {"error": "Register first.", "code": "unknown"})
    desk.answers = {"/agents/heartbeat": [unknown, (200, {"tasks": []})], "/agents/register": [(201, REGISTERED)]}
    assert client(desk, state).call("/agents/heartbeat", {}) == {"tasks": []}


@pytest.mark.parametrize(
    ("status", "said"),
    [(200, b"<html>Log in to the hotel's network</html>"), (502, b"<h1>Bad Gateway</h1>"), (200, b"[]"),
     (302, {}), (404, {"detail": "not here"}), (500, {"error": "It broke.", "code": "broken"}),
     (503, {"error": "The database does not answer.", "code": "unavailable"})],
)  # fmt: skip
def test_what_is_not_the_fleets_word_counts_as_no_answer(desk: Desk, state: StateDir, status: int, said: Any) -> None:
    desk.answers = {"/tasks/x/complete": [(status, said)]}
    with pytest.raises(ServerUnavailable):
        client(desk, state).call_task("x", "complete", {})


def test_who_is_busy_says_when_to_come_again(desk: Desk, state: StateDir) -> None:
    desk.answers, desk.headers = {"/tasks/dequeue": [(429, {"error": "Full.", "code": "busy"})]}, {"Retry-After": "5"}
    with pytest.raises(ServerUnavailable) as away:
        client(desk, state).call("/tasks/dequeue", {}, key="k")
    assert away.value.retry_after == 5


def test_a_no_is_a_no_and_brings_what_it_says(desk: Desk, state: StateDir) -> None:
    desk.answers = {"/tasks/x/log": [(409, {"error": "There is a gap.", "code": "stale", "next_offset": 7})]}
    with pytest.raises(RequestRefused, match="gap") as refusal:
        client(desk, state).call_task("x", "log", {})
    assert (refusal.value.status, refusal.value.body["next_offset"]) == (409, 7)


def test_pauses_grow_and_are_never_the_same_for_all(desk: Desk, state: StateDir) -> None:
    first, second = (list(islice(client(desk, state).backoff(), 12)) for _ in range(2))
    assert first != second
    assert first[0] <= 0.5 and all(LONGEST_PAUSE_SECS / 2 <= pause <= LONGEST_PAUSE_SECS for pause in first[8:])


def test_held_tasks_survive_a_restart_and_a_torn_file_harms_no_other(state: StateDir) -> None:
    work = Work("acme/widgets#1", 3, "Do it.")
    tasks = HeldTasks(state)
    assert tasks.add(HeldTask.taken(work)) is True
    assert tasks.add(HeldTask.taken(work)) is False
    tasks.prepare_start(tasks.all()[0])
    (state.path / "holds" / "torn.json").write_text('{"task_id": "acme')
    (state.path / "holds" / "foreign.json").write_text('{"task_id": "acme/widgets#9", "step": "dancing"}')
    again = HeldTasks(state).all()
    assert [(held.task_id, held.lease, held.step, held.run_name) for held in again] == [
        ("acme/widgets#1", 3, Step.CONFIRMED, tasks.all()[0].run_name)
    ]


def test_a_session_of_another_cli_is_dropped_and_the_fresh_one_gets_the_whole_prompt(
    state: StateDir, tmp_path: Path
) -> None:
    of_codex, of_claude = (LocalRuns(tmp_path, "i1", catalog.template_of(cli), None) for cli in ("codex", "claude"))
    held = HeldTask.taken(Work("x", 1, "Do it."))
    tasks = HeldTasks(state, "codex")
    tasks.add(held)
    tasks.change(held, session="s-1", usage_before=Usage(5), lease=2, prompt="Use sum().")
    call = of_codex.start_request(held)["agent"]
    assert "s-1" in call["argv"] and call["prompt"] == "Use sum()."
    (same,) = HeldTasks(state, "codex").all()
    assert (same.session, same.usage_before) == ("s-1", Usage(5))
    (other,) = HeldTasks(state, "claude").all()
    call = of_claude.start_request(other)["agent"]
    assert (other.session, other.usage_before, call["prompt"]) == (None, Usage(), "Do it.\nUse sum().")
    assert call["argv"] == catalog.template_of("claude").argv


def test_the_part_of_a_long_log_that_this_machine_lost_is_a_line_in_the_servers(
    desk: Desk, state: StateDir, tmp_path: Path
) -> None:
    tasks, runs = HeldTasks(state), LocalRuns(tmp_path / "work", "i1", CliTemplate(), None)
    held = HeldTask.taken(Work("x", 1, "Do it."))
    tasks.add(held)
    line = b"\n[7 bytes of output were left out here]\n"
    desk.answers = {
        "/tasks/x/log": [(200, {"next_offset": n}) for n in (3, 3 + len(line), 5 + len(line), 8 + len(line))]
    }
    uploads = Uploads(held, tasks, client(desk, state), runs, lambda: Mask([]))
    for offset, data in ((0, b"abc"), (10, b"kl"), (12, b"mno")):
        logs = {"stdout": LogPiece(offset, data, 15), "stderr": LogPiece(0, b"", 0)}
        uploads.upload(RunStatus(True, result={"end": "finished"}, logs=logs), Usage())
    told = [(body["offset"], base64.b64decode(body["data"])) for _, _, body in desk.asked]
    assert told == [(0, b"abc"), (3, line), (3 + len(line), b"kl"), (5 + len(line), b"mno")]

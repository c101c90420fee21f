"""What the agent makes of each kind of answer, told by a real HTTP server that says what a test wants."""

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
from workers.agent.api_client import LONGEST_PAUSE_SECS, Away, Refusal, Server, Unwelcome
from workers.agent.leases import Holds, Step, taken
from workers.agent.local_runs import Machine
from workers.agent.state_dir import Folder
from workers.agent.uploads import Reports

WELCOME = {"registry_token": "fresh", "heartbeat_interval_secs": 60, "offline_after_secs": 180}
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
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "state")
    folder.open()
    return folder


def server(desk: Desk, folder: Folder, enrol_token: str | None = "enrol") -> Server:
    return Server(desk.url, folder, {"agent_id": "a1", "capabilities": []}, enrol_token)


def test_a_token_that_is_not_valid_any_more_is_renewed_and_the_call_repeated(desk: Desk, folder: Folder) -> None:
    folder.keep_token("a1", "old")
    desk.answers = {
        "/tasks/x/status": [NO_TOKEN, (200, {"stop": False})],
        "/agents/register": [NO_TOKEN, (200, WELCOME)],
    }
    assert server(desk, folder).about_task("x", "status", {"lease": 1}) == {"stop": False}
    assert [(path, shown) for path, shown, _ in desk.asked] == [
        ("/tasks/x/status", "Bearer old"), ("/agents/register", "Bearer old"), ("/agents/register", "Bearer enrol"),
        ("/tasks/x/status", "Bearer fresh"),
    ]  # fmt: skip
    assert folder.token() == "fresh"
    assert (folder.path / "token").stat().st_mode & 0o777 == 0o600


def test_who_is_let_in_by_no_token_hears_the_servers_sentence(desk: Desk, folder: Folder) -> None:
    desk.answers = {"/agents/register": [(403, {"error": "The agent 'a1' was revoked.", "code": "forbidden"})]}
    with pytest.raises(Unwelcome, match="was revoked"):
        server(desk, folder).register()
    with pytest.raises(Unwelcome, match="set FLEET_ENROLL_TOKEN"):
        server(desk, folder, enrol_token=None).register()


def test_a_fleet_that_forgot_the_agent_is_told_again_who_it_is(desk: Desk, folder: Folder) -> None:
    unknown = (404, {"error": "Register first.", "code": "unknown"})
    desk.answers = {"/agents/heartbeat": [unknown, (200, {"tasks": []})], "/agents/register": [(201, WELCOME)]}
    assert server(desk, folder).call("/agents/heartbeat", {}) == {"tasks": []}


@pytest.mark.parametrize(
    ("status", "said"),
    [(200, b"<html>Log in to the hotel's network</html>"), (502, b"<h1>Bad Gateway</h1>"), (200, b"[]"),
     (302, {}), (404, {"detail": "not here"}), (500, {"error": "It broke.", "code": "broken"}),
     (503, {"error": "The database does not answer.", "code": "unavailable"})],
)  # fmt: skip
def test_what_is_not_the_fleets_word_counts_as_no_answer(desk: Desk, folder: Folder, status: int, said: Any) -> None:
    desk.answers = {"/tasks/x/complete": [(status, said)]}
    with pytest.raises(Away):
        server(desk, folder).about_task("x", "complete", {})


def test_who_is_busy_says_when_to_come_again(desk: Desk, folder: Folder) -> None:
    desk.answers, desk.headers = {"/tasks/dequeue": [(429, {"error": "Full.", "code": "busy"})]}, {"Retry-After": "5"}
    with pytest.raises(Away) as away:
        server(desk, folder).call("/tasks/dequeue", {}, key="k")
    assert away.value.retry_after == 5


def test_a_no_is_a_no_and_brings_what_it_says(desk: Desk, folder: Folder) -> None:
    desk.answers = {"/tasks/x/log": [(409, {"error": "There is a gap.", "code": "stale", "next_offset": 7})]}
    with pytest.raises(Refusal, match="gap") as refusal:
        server(desk, folder).about_task("x", "log", {})
    assert (refusal.value.status, refusal.value.body["next_offset"]) == (409, 7)


def test_pauses_grow_and_are_never_the_same_for_all(desk: Desk, folder: Folder) -> None:
    first, second = (list(islice(server(desk, folder).pauses(), 12)) for _ in range(2))
    assert first != second
    assert first[0] <= 0.5 and all(LONGEST_PAUSE_SECS / 2 <= pause <= LONGEST_PAUSE_SECS for pause in first[8:])


def test_what_is_held_is_there_again_after_a_restart_and_a_torn_file_harms_no_other(folder: Folder) -> None:
    work = {"task_id": "acme/widgets#1", "lease": 3, "prompt": {"text": "Do it."}}
    holds = Holds(folder)
    assert holds.add(taken(work)) is True
    assert holds.add(taken(work)) is False
    holds.start_anew(holds.all()[0])
    (folder.path / "holds" / "torn.json").write_text('{"task_id": "acme')
    (folder.path / "holds" / "foreign.json").write_text('{"task_id": "acme/widgets#9", "step": "dancing"}')
    again = Holds(folder).all()
    assert [(hold.task_id, hold.lease, hold.step, hold.run) for hold in again] == [
        ("acme/widgets#1", 3, Step.CONFIRMED, holds.all()[0].run)
    ]


def test_a_session_of_another_cli_is_not_gone_on_with_and_a_fresh_one_hears_all_of_it(
    folder: Folder, tmp_path: Path
) -> None:
    of_codex, of_claude = (Machine(tmp_path, "i1", catalog.template_of(cli), None) for cli in ("codex", "claude"))
    hold = taken({"task_id": "x", "lease": 1, "prompt": {"text": "Do it."}, "repository": None})
    holds = Holds(folder, "codex")
    holds.add(hold)
    holds.change(hold, session="s-1", used={"input_tokens": 5}, lease=2, prompt="Use sum().")
    assert "s-1" in of_codex.order(hold)["agent"]["argv"] and of_codex.order(hold)["agent"]["prompt"] == "Use sum()."
    (same,) = Holds(folder, "codex").all()
    assert (same.session, same.used) == ("s-1", {"input_tokens": 5})
    (other,) = Holds(folder, "claude").all()
    asked = of_claude.order(other)["agent"]
    assert (other.session, other.used, asked["prompt"]) == (None, {}, "Do it.\nUse sum().")
    assert asked["argv"] == catalog.template_of("claude").argv


def test_what_a_long_log_lost_on_this_machine_is_a_line_in_the_servers(
    desk: Desk, folder: Folder, tmp_path: Path
) -> None:
    holds, machine = Holds(folder), Machine(tmp_path / "work", "i1", CliTemplate(), None)
    hold = taken({"task_id": "x", "lease": 1, "prompt": {"text": "Do it."}})
    holds.add(hold)
    line = b"\n[7 bytes of output were left out here]\n"
    desk.answers = {
        "/tasks/x/log": [(200, {"next_offset": n}) for n in (3, 3 + len(line), 5 + len(line), 8 + len(line))]
    }
    reports = Reports(hold, holds, server(desk, folder), machine, lambda: Mask([]))
    nothing = {"offset": 0, "size": 0, "data": b""}
    for offset, data in ((0, b"abc"), (10, b"kl"), (12, b"mno")):
        piece = {"offset": offset, "size": 15, "data": data}
        reports.keep_up({"stdout": piece, "stderr": nothing, "result": True}, {})
    told = [(body["offset"], base64.b64decode(body["data"])) for _, _, body in desk.asked]
    assert told == [(0, b"abc"), (3, line), (3 + len(line), b"kl"), (5 + len(line), b"mno")]

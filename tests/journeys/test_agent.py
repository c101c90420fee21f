"""The reference agent on its journeys: from the issue to the receipt with no host, and through everything that breaks."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.stage import REPOSITORY
from tests.journeys.puller import Puller, Wire, pulling, until
from tests.journeys.traveller import Journey

pytestmark = pytest.mark.journey


@contextmanager
def wired(travel: Journey, puller: Puller) -> Iterator[Wire]:
    """The agent reaches the server by a wire that can be cut."""
    wire = Wire(travel.stage.config.port)
    puller.words[1] = wire.url
    try:
        yield wire
    finally:
        wire.close()


def facts(travel: Journey, task_id: str) -> list[str]:
    return [event["fact"] for event in travel.task(task_id)["events"]]


def operator(travel: Journey, verb: str, task_id: str) -> None:
    url = f"{travel.stage.config.public_url}/api/v1/tasks/{task_id.replace('#', '%23')}/{verb}"
    token = travel.stage.config.secret("FLEET_OPERATOR_TOKEN")
    httpx.post(url, headers={"Authorization": f"Bearer {token}"}).raise_for_status()


def log_of(travel: Journey, task_id: str, run: int) -> bytes:
    import base64

    url = f"{travel.stage.config.public_url}/api/v1/tasks/{task_id.replace('#', '%23')}/log"
    token = travel.stage.config.secret("FLEET_OPERATOR_TOKEN")
    answer = httpx.get(url, params={"run": run}, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
    return base64.b64decode(answer.json()["data"])


def test_an_issue_becomes_a_receipt_with_no_host_at_all(tmp_path: Path) -> None:
    with pulling(tmp_path) as (travel, puller):
        puller.start()
        task_id = travel.open_issue()
        task = travel.to_the_merge(task_id)
        assert (task["execution_mode"], task["assigned_agent_id"], task["review_count"]) == ("http_pull", "puller", 1)
        first, second = task["runs"]
        assert [first["end"], second["end"]] == ["finished", "finished"]
        assert first["session"] == second["session"] is not None  # the same session went on
        assert [check["exit_code"] for check in second["checks"]] == [0]
        assert second["usage"]["input_tokens"] == 1200
        assert log_of(travel, task_id, 1).count(b"turn.completed") == 1
        assert len(travel.pulls()) == 1
        assert travel.comment_kinds(task_id) == ["status", "receipt"]
        travel.until(lambda: not puller.holds(), "nothing held any more")
        assert not list(puller.state.glob("work/runs/*/*")) and not list(puller.state.glob("outbox/*"))
        assert not [path for path in puller.state.glob("work/work/*/*") if not path.name.startswith(".")]
        assert all(path.stat().st_mode & 0o077 == 0 for path in (puller.state, puller.state / "token"))
        secrets = [puller.environ["FLEET_ENROLL_TOKEN"], puller.environ["FLEET_FORGE_TOKEN"]]
        secrets.append((puller.state / "token").read_text())
        assert not any(secret in puller.log.read_text() for secret in secrets)
        assert not any(secret in str(puller.words) for secret in secrets)
        travel.assert_history_holds()
        puller.send(signal.SIGTERM)
        assert puller.code() == 0


def test_an_agent_killed_in_the_midst_of_a_run_adopts_it_when_it_is_back(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=2.0) as (travel, puller):
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        before = puller.at_work()
        puller.kill()
        assert puller.at_work() == before
        puller.start()
        travel.until_status(task_id, "review_pending", opened=1)
        assert [state["agent_pid"] for state in puller.runs()] in ([], before)  # its folder may be given back already
        assert sum(line.get("step") == "running" for line in puller.said()) == 1
        assert travel.run_rows() == 1
        assert log_of(travel, task_id, 1).count(b"thread.started") == 1
        travel.assert_history_holds()


def test_the_web_process_killed_in_the_midst_of_a_run_changes_nothing(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=1.0) as (travel, puller):
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        travel.kill("web")
        task = travel.to_the_merge(task_id)
        assert [run["end"] for run in task["runs"]] == ["finished", "finished"]
        assert len(travel.pulls()) == 1
        travel.assert_history_holds()


@pytest.mark.parametrize("path", ["/complete ", "/dequeue ", "/agents/register "])
def test_a_lost_answer_is_asked_for_again_and_the_work_is_done_once(tmp_path: Path, path: str) -> None:
    with pulling(tmp_path) as (travel, puller), wired(travel, puller) as wire:
        wire.lose_the_answer_to(path)
        task_id = travel.open_issue()
        puller.start()
        task = travel.until_status(task_id, "review_pending", opened=1)
        assert len(wire.lost) == 1
        assert facts(travel, task_id).count("claimed") == facts(travel, task_id).count("finished") == 1
        assert (task["retry_count"], len(task["runs"]), len(travel.pulls())) == (0, 1, 1)
        travel.assert_history_holds()


def test_a_receipt_outlives_an_outage_and_the_agent_itself(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=0.5) as (travel, puller), wired(travel, puller) as wire:
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        wire.cut()
        travel.until(lambda: puller.steps() == ["ended"], "the receipt in the outbox")
        puller.kill()
        puller.start()
        travel.until(lambda: any(line["event"] == "the fleet cannot be reached" for line in puller.said()), "an outage")
        wire.mend()
        task = travel.until_status(task_id, "review_pending", opened=1)
        assert [run["end"] for run in task["runs"]] == ["finished"]
        assert log_of(travel, task_id, 1).count(b"turn.completed") == 1


def test_told_to_stop_once_it_finishes_what_it_has_and_takes_no_more(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=1.0) as (travel, puller):
        puller.start()
        first = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        puller.send(signal.SIGTERM)
        second = travel.open_issue("Another one", "Do it too.")
        assert puller.code() == 0
        travel.until_status(first, "review_pending", opened=1)
        assert travel.until_status(second, "created")["runs"] == []
        assert [line["event"] for line in puller.said()][-1] == "the agent has ended"


def test_told_to_stop_twice_it_ends_its_run_and_gives_the_task_back(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=60) as (travel, puller):
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        puller.send(signal.SIGTERM)
        travel.until(lambda: any("draining" in line["event"] for line in puller.said()), "it drains")
        puller.send(signal.SIGTERM)
        assert puller.code() == 143
        assert puller.at_work() == []
        task = travel.until_status(task_id, "created")
        assert (task["retry_count"], facts(travel, task_id)[-1]) == (0, "given_back")


def test_a_run_whose_lease_cannot_be_renewed_ends_before_the_lease_does(tmp_path: Path) -> None:
    with (
        pulling(tmp_path, 60, FLEET_OFFLINE_AFTER_SECS="8", FLEET_SCAN_SECS="0.2") as (travel, puller),
        wired(travel, puller) as wire,
    ):
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        travel.until(lambda: travel.task(task_id)["status"] == "running", "confirmed")
        wire.cut()
        until(lambda: not puller.at_work(), "the CLI is ended")
        assert travel.task(task_id)["status"] == "running"  # the lease still lasts
        travel.until(lambda: "expired" in facts(travel, task_id), "the lease is over")
        wire.mend()
        travel.until(lambda: len(travel.task(task_id)["runs"]) == 2, "it came to us again by a new lease")
        travel.until(puller.at_work, "the CLI at work again")
        assert travel.task(task_id)["runs"][0]["end"] == "expired"
        operator(travel, "cancel", task_id)
        travel.until(lambda: not puller.holds(), "left")


def test_when_the_fleet_itself_was_away_the_lease_lasts_and_the_session_goes_on(tmp_path: Path) -> None:
    with pulling(tmp_path, 60, FLEET_OFFLINE_AFTER_SECS="6", FLEET_SCAN_SECS="0.2") as (travel, puller):
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        before = puller.at_work()
        children = travel.stage.keeper.children
        for child in [child for child in children if child.name in ("web", "beat", "worker")]:
            child.stop()
        until(lambda: "paused" in puller.steps(), "the run is ended, since nobody renews its lease")
        travel.until(lambda: set(puller.at_work()) - set(before), "it goes on by the same lease")
        task = travel.task(task_id)
        assert (task["status"], [run["end"] for run in task["runs"]], task["retry_count"]) == ("running", [None], 0)
        operator(travel, "cancel", task_id)
        travel.until(lambda: not puller.holds() and not puller.at_work(), "the operator's word reached it")
        travel.assert_history_holds()


def test_two_slots_work_at_the_same_time_and_a_third_task_waits(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=2.0, slots=2) as (travel, puller):
        ids = [travel.open_issue(f"Issue {n}", "Do it.") for n in range(3)]
        puller.start()
        travel.until(lambda: len(puller.at_work()) == 2, "two at work")
        for task_id in ids:
            travel.until_status(task_id, "review_pending", opened=1)
        claimed = sorted(travel.task(task_id)["runs"][0]["assigned_at"] for task_id in ids)
        ended = sorted(travel.task(task_id)["runs"][0]["ended_at"] for task_id in ids)
        assert claimed[2] >= ended[0]


class TestSentences:
    """What is wrong is said in one sentence, before anything is started."""

    @staticmethod
    def said(puller: Puller, *words: str, **environ: str) -> tuple[int, str]:
        puller.words, puller.environ = [*puller.words, *words], puller.environ | environ
        puller.start()
        code = puller.code()
        said = [line for line in puller.log.read_text().splitlines() if not line.startswith("{")]
        assert all(line.startswith("fleet agent: ") for line in said), said
        return code, "\n".join(said)

    @pytest.fixture(scope="class")
    def travel(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        with pulling(tmp_path_factory.mktemp("s")) as (travel, _):
            yield travel

    @pytest.mark.parametrize(
        ("words", "environ", "sentence"),
        [(["--server", "fleet.example.org"], {}, "--server 'fleet.example.org' must be an address"),
         (["--cli", "nobody"], {}, "No CLI is named 'nobody'"),
         (["--cli", "codex"], {"PATH": "/nowhere"}, "git is missing"),
         (["--cli", "codex"], {"PATH": "/nowhere"}, "needs the program 'codex'"),
         (["--agent-id", "../x"], {}, "agent_id"),
         ([], {"FLEET_ENROLL_TOKEN": "wrong"}, "does not let this agent in: Show an enrolment token"),
         ([], {"FLEET_ENROLL_TOKEN": ""}, "set FLEET_ENROLL_TOKEN"),
         ([], {"FLEET_ENROLL_TOKEN_FILE": "/nowhere/token"}, "/nowhere/token, which cannot be read")],
    )  # fmt: skip
    def test_one_for_each_fault(
        self, travel: Journey, tmp_path: Path, words: list[str], environ: dict[str, str], sentence: str
    ) -> None:
        code, said = self.said(Puller(travel, tmp_path), *words, **environ)
        assert code == 1
        assert sentence in said

    def test_one_state_folder_is_one_agents(self, travel: Journey, tmp_path: Path) -> None:
        first, second = Puller(travel, tmp_path), Puller(travel, tmp_path)
        first.start()
        try:
            travel.until((first.state / "token").exists, "registered")
            second.log = tmp_path / "second.log"
            code, said = self.said(second)
            assert (code, "Another agent works with" in said) == (1, True)
            first.send(signal.SIGTERM)
            assert first.code() == 0
            code, said = self.said(second, "--agent-id", "somebody-else")
            assert (code, "belongs to the agent 'puller'" in said) == (1, True)
        finally:
            first.end()


def test_work_that_was_not_pushed_is_saved_before_its_worktree_goes(tmp_path: Path) -> None:
    with pulling(tmp_path, seconds=60) as (travel, puller):
        puller.start()
        task_id = travel.open_issue()
        travel.until(puller.at_work, "the CLI at work")
        worktree = next(path for path in puller.state.glob("work/work/*/*") if not path.name.startswith("."))
        (worktree / "half.txt").write_text("half of it")
        operator(travel, "cancel", task_id)
        travel.until(lambda: not puller.holds(), "left")
        branches = travel.forge.client(travel.stage.alice.token).get(f"/repos/{REPOSITORY}/branches").json()
        assert any(branch["name"].startswith("wip/") for branch in branches)
        assert not worktree.exists()

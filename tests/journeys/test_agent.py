"""The reference agent on its journeys: issue to receipt with no host, and through everything that breaks."""

import base64
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.cli.demo.stage import REPOSITORY
from app.store.tables import rules
from tests.journeys.agent_process import AgentProcess, Wire, pulling
from tests.journeys.issue_journey import Journey
from tests.patience import patient

pytestmark = pytest.mark.journey


@contextmanager
def wired(travel: Journey, puller: AgentProcess) -> Iterator[Wire]:
    """The agent reaches the server by a wire that can be cut."""
    wire = Wire(travel.stage.config.port)
    puller.words[1] = wire.url
    try:
        yield wire
    finally:
        wire.close()


def facts(travel: Journey, task_id: str) -> list[str]:
    return [event["fact"] for event in travel.task(task_id)["events"]]


def pulls(travel: Journey, task_id: str) -> list[Any]:
    branch = travel.task(task_id)["branch_name"]
    return [pull for pull in travel.pulls() if pull["head"]["ref"] == branch]


def operator(travel: Journey, verb: str, task_id: str) -> None:
    url = f"{travel.stage.config.public_url}/api/v1/tasks/{task_id.replace('#', '%23')}/{verb}"
    token = travel.stage.config.secret("FLEET_OPERATOR_TOKEN")
    httpx.post(url, headers={"Authorization": f"Bearer {token}"}).raise_for_status()


def asked_for(travel: Journey, asked: dict[str, Any]) -> str:
    """A task by API call."""
    token = travel.stage.config.secret("FLEET_OPERATOR_TOKEN")
    url, headers = f"{travel.stage.config.public_url}/api/v1/tasks", {"Authorization": f"Bearer {token}"}
    return str(httpx.post(url, json=asked, headers=headers).raise_for_status().json()["task_id"])


def log_of(travel: Journey, task_id: str, run: int) -> bytes:
    url = f"{travel.stage.config.public_url}/api/v1/tasks/{task_id.replace('#', '%23')}/log"
    token = travel.stage.config.secret("FLEET_OPERATOR_TOKEN")
    answer = httpx.get(url, params={"run": run}, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
    return base64.b64decode(answer.json()["data"])


def test_an_issue_becomes_a_receipt_with_no_host_at_all(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller:
        puller.program = ("app.cli", "agent")
        puller.start()
        task_id = puller.issue()
        task = stage_of_agents.to_the_merge(task_id)
        assert (task["execution_mode"], task["assigned_agent_id"], task["review_count"]) == (
            "http_pull",
            puller.agent_id,
            1,
        )
        first, second = task["runs"]
        assert [first["end"], second["end"]] == ["finished", "finished"]
        assert first["session"] == second["session"] is not None  # the same session went on
        assert [check["exit_code"] for check in second["checks"]] == [0]
        assert second["usage"]["input_tokens"] == 1200
        assert log_of(stage_of_agents, task_id, 1).count(b"turn.completed") == 1
        assert len(pulls(stage_of_agents, task_id)) == 1
        assert stage_of_agents.comment_kinds(task_id) == ["status", "receipt"]
        stage_of_agents.until(lambda: not puller.holds(), "nothing held any more")
        assert not list(puller.state.glob("work/runs/*/*")) and not list(puller.state.glob("outbox/*"))
        assert not [path for path in puller.state.glob("work/work/*/*") if not path.name.startswith(".")]
        assert all(path.stat().st_mode & 0o077 == 0 for path in (puller.state, puller.state / "token"))
        secrets = [puller.environ["FLEET_ENROLL_TOKEN"], puller.environ["FLEET_FORGE_TOKEN"]]
        secrets.append((puller.state / "token").read_text())
        assert not any(secret in puller.log.read_text() for secret in secrets)
        assert not any(secret in str(puller.words) for secret in secrets)
        stage_of_agents.assert_history_holds()
        puller.send(signal.SIGTERM)
        assert puller.code() == 0


def test_an_agent_killed_in_the_midst_of_a_run_adopts_it_when_it_is_back(
    stage_of_agents: Journey, tmp_path: Path
) -> None:
    with pulling(stage_of_agents, tmp_path) as puller:
        puller.start()
        task_id = puller.issue()
        with puller.held():
            stage_of_agents.until(puller.at_work, "the CLI at work")
            before = puller.at_work()
            puller.kill()
            assert puller.at_work() == before
            puller.start()
        stage_of_agents.until_status(task_id, "review_pending", opened=1)
        assert [state["agent_pid"] for state in puller.runs()] in ([], before)  # its folder may be given back already
        assert sum(line.get("step") == "running" for line in puller.said()) == 1
        assert len(stage_of_agents.task(task_id)["runs"]) == 1
        assert log_of(stage_of_agents, task_id, 1).count(b"thread.started") == 1
        stage_of_agents.assert_history_holds()


def test_the_web_process_killed_in_the_midst_of_a_run_changes_nothing(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller:
        puller.start()
        with puller.held():
            task_id = puller.issue()
            stage_of_agents.until(puller.at_work, "the CLI at work")
            stage_of_agents.kill("web")
        task = stage_of_agents.until_status(task_id, "review_pending", opened=1)
        assert [run["end"] for run in task["runs"]] == ["finished"]
        assert len(pulls(stage_of_agents, task_id)) == 1
        stage_of_agents.assert_history_holds()


@pytest.mark.parametrize("path", ["/complete ", "/dequeue ", "/agents/register "])
def test_a_lost_answer_is_asked_for_again_and_the_work_is_done_once(
    stage_of_agents: Journey, tmp_path: Path, path: str
) -> None:
    with pulling(stage_of_agents, tmp_path) as puller, wired(stage_of_agents, puller) as wire:
        wire.lose_the_answer_to(path)
        task_id = puller.issue()
        puller.start()
        task = stage_of_agents.until_status(task_id, "review_pending", opened=1)
        assert len(wire.lost) == 1
        assert (
            facts(stage_of_agents, task_id).count("claimed") == facts(stage_of_agents, task_id).count("finished") == 1
        )
        assert (task["retry_count"], len(task["runs"]), len(pulls(stage_of_agents, task_id))) == (0, 1, 1)
        stage_of_agents.assert_history_holds()


def test_a_receipt_outlives_an_outage_and_the_agent_itself(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller, wired(stage_of_agents, puller) as wire:
        puller.start()
        with puller.held():
            task_id = puller.issue()
            stage_of_agents.until(puller.at_work, "the CLI at work")
            wire.cut()
        stage_of_agents.until(lambda: puller.steps() == ["ended"], "the receipt in the outbox")
        puller.kill()
        puller.start()
        stage_of_agents.until(
            lambda: any(line["event"] == "the fleet cannot be reached" for line in puller.said()), "an outage"
        )
        wire.mend()
        task = stage_of_agents.until_status(task_id, "review_pending", opened=1)
        assert [run["end"] for run in task["runs"]] == ["finished"]
        assert log_of(stage_of_agents, task_id, 1).count(b"turn.completed") == 1


TALKER = """
import json, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say = lambda **event: print(json.dumps({"session_id": "s-1", **event}), flush=True)
for number in range(600):
    used = {"input_tokens": 300, "output_tokens": 100}
    say(type="assistant", message={"id": f"m{number}", "model": "m", "content": [], "usage": used})
    time.sleep(0.1)
"""


@contextmanager
def capped(travel: Journey, **budget: Any) -> Iterator[None]:
    """The stage's repository has a budget for a while."""

    def have(budget: dict[str, Any]) -> None:
        with travel.stage.fleet.engine.begin() as conn:
            conn.execute(sa.update(rules).values(budget=budget))

    have(budget)
    try:
        yield
    finally:
        have({})


def test_a_budget_that_its_cli_crosses_ends_the_run_within_seconds_by_force_if_need_be(
    stage_of_agents: Journey, tmp_path: Path
) -> None:
    with pulling(stage_of_agents, tmp_path) as puller, capped(stage_of_agents, run={"tokens": 6000}):
        argv = json.dumps([sys.executable, "-c", TALKER])
        (tmp_path / "clis.toml").write_text(f'[clis.coder]\nargv = {argv}\nparser = "claude-result"\n')
        puller.start()
        task_id = puller.issue()
        task = stage_of_agents.until_status(task_id, "parked")
        since = time.monotonic()
        stage_of_agents.until(lambda: not puller.at_work(), "the CLI has ended")
        assert time.monotonic() - since < patient(7), "5 s, and what a busy machine takes"
        assert (task["reason"], task["retry_count"]) == ("budget", 0)
        used = task["runs"][0]["usage"]
        assert 6000 <= used["input_tokens"] + used["output_tokens"] <= 6000 + patient(14) * 4000, (
            "what the talker says in 14 s"
        )
        stage_of_agents.until(lambda: not puller.holds(), "left")
        stage_of_agents.assert_history_holds()


def test_told_to_stop_once_it_finishes_what_it_has_and_takes_no_more(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller:
        puller.start()
        with puller.held():
            first = puller.issue()
            stage_of_agents.until(puller.at_work, "the CLI at work")
            puller.send(signal.SIGTERM)
            stage_of_agents.until(lambda: any("draining" in line["event"] for line in puller.said()), "it drains")
            second = puller.issue("Another one", "Do it too.")
        assert puller.code() == 0
        stage_of_agents.until_status(first, "review_pending", opened=1)
        assert stage_of_agents.until_status(second, "created")["runs"] == []
        assert [line["event"] for line in puller.said()][-1] == "the agent has ended"


def test_told_to_stop_twice_it_ends_its_run_and_gives_the_task_back(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller, puller.held():
        puller.start()
        task_id = puller.issue()
        stage_of_agents.until(puller.at_work, "the CLI at work")
        puller.send(signal.SIGTERM)
        stage_of_agents.until(lambda: any("draining" in line["event"] for line in puller.said()), "it drains")
        puller.send(signal.SIGTERM)
        assert puller.code() == 143
        assert puller.at_work() == []
        task = stage_of_agents.until_status(task_id, "created")
        assert (task["retry_count"], facts(stage_of_agents, task_id)[-1]) == (0, "given_back")


def test_two_slots_work_at_the_same_time_and_a_third_task_waits(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path, slots=2) as puller:
        ids = [puller.issue(f"Issue {n}", "Do it.") for n in range(3)]
        with puller.held():
            puller.start()
            stage_of_agents.until(lambda: len(puller.at_work()) == 2, "two at work")
        for task_id in ids:
            stage_of_agents.until_status(task_id, "review_pending", opened=1)
        claimed = sorted(stage_of_agents.task(task_id)["runs"][0]["assigned_at"] for task_id in ids)
        ended = sorted(stage_of_agents.task(task_id)["runs"][0]["ended_at"] for task_id in ids)
        assert claimed[2] >= ended[0]


def test_a_task_without_a_repository_is_done_in_an_empty_folder(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller:
        asked = {
            "title": "Think", "requirements": "Write down a thought.", "required_capabilities": [puller.can],
            "wants_pull_request": False,
        }  # fmt: skip
        task_id = asked_for(stage_of_agents, asked)
        puller.start()
        task = stage_of_agents.until_status(task_id, "completed")
        assert task["runs"][0]["summary"].startswith("I wrote work-")
        stage_of_agents.until(lambda: not puller.holds(), "left")
        assert len(list(puller.state.glob("work/saved/*.tar.gz"))) == 1  # what it wrote stays on its machine


def test_work_that_was_not_pushed_is_saved_before_its_worktree_goes(stage_of_agents: Journey, tmp_path: Path) -> None:
    with pulling(stage_of_agents, tmp_path) as puller, puller.held():
        puller.start()
        task_id = puller.issue()
        stage_of_agents.until(puller.at_work, "the CLI at work")
        worktree = next(path for path in puller.state.glob("work/work/*/*") if not path.name.startswith("."))
        (worktree / "half.txt").write_text("half of it")
        operator(stage_of_agents, "cancel", task_id)
        stage_of_agents.until(lambda: not puller.holds(), "left")
        branches = (
            stage_of_agents.forge.client(stage_of_agents.stage.alice.token).get(f"/repos/{REPOSITORY}/branches").json()
        )
        assert f"wip/{worktree.name}" in [branch["name"] for branch in branches]
        assert not worktree.exists()

"""Processes killed in the midst of a run: the run goes on, is adopted, and is neither lost nor started twice."""

from pathlib import Path

import psutil
import pytest
import redis

from app.cli.processes import Child
from tests.journeys.traveller import Journey, journey

pytestmark = pytest.mark.journey


def agent_works(travel: Journey) -> bool:
    return any(state.get("agent_pid") for state in travel.run_states())


def test_a_worker_killed_while_the_cli_runs_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with journey(tmp_path, seconds=2.0) as travel:
        task_id = travel.open_issue()
        travel.until(lambda: agent_works(travel), "the CLI at work")
        before = travel.run_states()
        travel.kill("worker")
        assert psutil.pid_exists(before[0]["agent_pid"])
        travel.until_status(task_id, "review_pending", opened=1)
        after = travel.run_states()
        assert [state["agent_pid"] for state in after] == [before[0]["agent_pid"]]
        assert travel.run_rows() == 1
        assert len(travel.pulls()) == 1
        travel.until_settled(task_id)
        assert travel.comment_kinds(task_id) == ["status"]
        travel.assert_history_holds()


@pytest.mark.parametrize("name", ["web", "beat", "postgres", "valkey"])
def test_any_other_process_killed_while_the_cli_runs_changes_nothing(tmp_path: Path, name: str) -> None:
    with journey(tmp_path, seconds=1.0) as travel:
        task_id = travel.open_issue()
        travel.until(lambda: agent_works(travel), "the CLI at work")
        travel.kill(name)
        task = travel.to_the_merge(task_id)
        assert [run["end"] for run in task["runs"]] == ["finished", "finished"]
        assert len(travel.pulls()) == 1
        assert travel.comment_kinds(task_id) == ["status", "receipt"]
        travel.assert_history_holds()


def test_two_of_each_process_do_no_harm(tmp_path: Path) -> None:
    with journey(tmp_path, seconds=0.5) as travel:
        keeper = travel.stage.keeper
        for twin in [child for child in keeper.children if child.name in ("beat", "worker")]:
            keeper.add(Child(f"{twin.name}-2", twin.argv, twin.env, log=twin.log))
        first, second = travel.open_issue(), travel.open_issue("Another one", "Do it too.")
        travel.to_the_merge(first)
        travel.until_status(second, "review_pending", opened=1)
        assert travel.run_rows() == 3
        assert len(travel.pulls()) == 2
        assert travel.comment_kinds(first) == ["status", "receipt"]
        travel.assert_history_holds()


def test_redis_flushed_again_and_again_delays_and_loses_nothing(tmp_path: Path) -> None:
    with journey(tmp_path) as travel:
        client = redis.Redis(unix_socket_path=str(travel.stage.config.home / "run" / "valkey.sock"))
        look = travel.stage.keeper.look

        def flush_and_look() -> list[str]:
            client.flushall()
            return look()

        travel.stage.keeper.look = flush_and_look  # type: ignore[method-assign]
        task = travel.to_the_merge(travel.open_issue())
        assert task["status"] == "completed"
        assert task["review_count"] == 1
        client.close()

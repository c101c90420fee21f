"""Processes killed in the midst of a run: the run goes on, is adopted, and is neither lost nor started twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import redis

from app.cli.local.process_manager import ChildProcess
from tests.journeys.issue_journey import Journey

pytestmark = pytest.mark.journey


def until_at_work(travel: Journey, task_id: str) -> int:
    """The process of the CLI that works on a task."""
    travel.until(lambda: travel.agent_pids(task_id), "the CLI at work")
    return travel.agent_pids(task_id)[-1]


def assert_the_usual_end(travel: Journey, task_id: str) -> None:
    task = travel.to_the_merge(task_id)
    assert [run["end"] for run in task["runs"]] == ["finished", "finished"]
    assert (task["status"], task["review_count"]) == ("completed", 1)
    assert len(travel.pulls(task)) == 1
    assert travel.comment_kinds(task_id) == ["status", "receipt"]
    travel.assert_history_holds()


def test_a_worker_killed_while_the_cli_runs_loses_and_repeats_nothing(stage_of_hosts: Journey) -> None:
    with stage_of_hosts.held() as title:
        task_id = stage_of_hosts.open_issue(title)
        before = until_at_work(stage_of_hosts, task_id)
        stage_of_hosts.kill("worker")
        assert psutil.pid_exists(before)
    task = stage_of_hosts.until_status(task_id, "review_pending", opened=1)
    assert until_at_work(stage_of_hosts, task_id) == before
    assert len(task["runs"]) == 1
    assert len(stage_of_hosts.pulls(task)) == 1
    stage_of_hosts.until_outbox_is_empty(task_id)
    assert stage_of_hosts.comment_kinds(task_id) == ["status"]
    stage_of_hosts.assert_history_holds()


@pytest.mark.parametrize("name", ["web", "beat", "postgres", "valkey"])
def test_any_other_process_killed_while_the_cli_runs_changes_nothing(stage_of_hosts: Journey, name: str) -> None:
    with stage_of_hosts.held() as title:
        task_id = stage_of_hosts.open_issue(title)
        until_at_work(stage_of_hosts, task_id)
        stage_of_hosts.kill(name)
    assert_the_usual_end(stage_of_hosts, task_id)


def test_two_of_each_process_do_no_harm(stage_of_hosts: Journey) -> None:
    with twins(stage_of_hosts):
        first, second = stage_of_hosts.open_issue(), stage_of_hosts.open_issue("Another one", "Do it too.")
        assert_the_usual_end(stage_of_hosts, first)
        task = stage_of_hosts.until_status(second, "review_pending", opened=1)
        assert (len(task["runs"]), len(stage_of_hosts.pulls(task))) == (1, 1)


@contextmanager
def twins(travel: Journey) -> Iterator[None]:
    """A second beat and a second worker."""
    manager = travel.stage.manager
    once = [child for child in manager.children if child.name in ("beat", "worker")]
    twice = [manager.add(ChildProcess(f"{child.name}-2", child.argv, child.env, log=child.log)) for child in once]
    try:
        yield
    finally:
        for child in twice:
            manager.children.remove(child)
            child.stop()


def test_redis_flushed_again_and_again_delays_and_loses_nothing(stage_of_hosts: Journey) -> None:
    with redis.Redis(unix_socket_path=str(stage_of_hosts.stage.config.home / "run" / "valkey.sock")) as client:
        stage_of_hosts.meanwhile.append(client.flushall)
        try:
            assert_the_usual_end(stage_of_hosts, stage_of_hosts.open_issue())
        finally:
            stage_of_hosts.meanwhile.remove(client.flushall)

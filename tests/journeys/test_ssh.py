"""The whole story on a host that is reached over a real sshd, itself reached over another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.cli.local.process_manager import ChildProcess
from app.services.dispatch import host_health
from app.store import hosts as host_rows
from tests import sshd as servers_of_ssh
from tests.chaos.test_processes_die import until_at_work
from tests.find_sshd import Program
from tests.journeys.issue_journey import Journey, journey
from tests.patience import patient

TOP = Path(__file__).parents[2]

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]  # four ways there and back, with every process real


def fitness(travel: Journey, host_id: str = "host-1") -> tuple[str, str | None]:
    with travel.stage.fleet.engine.begin() as conn:
        host = host_health.find(host_rows.all_hosts(conn), host_id)
    return str(host.fitness), host.why


def fleet(travel: Journey, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "app.cli", *words]
    environ = os.environ | travel.stage.environ
    return subprocess.run(argv, capture_output=True, text=True, timeout=patient(60), cwd=TOP, env=environ, check=False)


def test_an_issue_is_merged_though_connection_and_worker_die(tmp_path: Path, sshd_program: Program) -> None:
    with servers_of_ssh.running(tmp_path / "sshd", sshd_program, count=2, first=40) as sshd:
        hosts = sshd.toml(0, work_dir="{work}", proxy_jump="host-2") + sshd.toml(1, agents=[], jump_only=True)
        with journey(tmp_path, hosts=hosts) as travel:
            with travel.held() as title:
                task_id = travel.open_issue(title)
                before = until_at_work(travel, task_id)
                sshd.cut()
                travel.kill("worker")
                assert psutil.pid_exists(before)
            task = travel.to_the_merge(task_id)
            assert [run["host_id"] for run in task["runs"]] == ["host-1", "host-1"]
            assert [run["end"] for run in task["runs"]] == ["finished", "finished"]
            assert travel.agent_pids(task_id)[0] == before
            assert len(travel.pulls()) == 1
            assert travel.comment_kinds(task_id) == ["status", "receipt"]
            travel.assert_history_holds()
            said = fleet(travel, "hosts", "test", "host-1", "--json")
            assert said.returncode == 0, said.stdout + said.stderr
            steps = {step["step"]: step["fine"] for step in json.loads(said.stdout)["steps"]}
            assert all(steps.values()) and {"connect", "host key", "login", "python", "git", "cli coder"} <= set(steps)


def test_each_of_two_workers_has_a_line_to_the_host_before_anything_starts_there(
    tmp_path: Path, sshd_program: Program
) -> None:
    with (
        servers_of_ssh.running(tmp_path / "sshd", sshd_program, first=46) as sshd,
        journey(tmp_path, hosts=sshd.toml(0)) as travel,
    ):
        manager = travel.stage.manager
        one = next(child for child in manager.children if child.name == "worker")
        other = manager.add(ChildProcess("worker-2", one.argv, one.env, log=one.log))

        def has_line(worker: ChildProcess) -> bool:
            sockets = psutil.Process(worker.process.pid).net_connections("tcp") if worker.process else []
            return any(bool(link.raddr) and link.raddr.port == sshd.port for link in sockets)

        travel.until(lambda: has_line(one) and has_line(other), "a line of each")


def test_a_host_whose_key_changes_is_put_into_quarantine_until_an_operator_has_looked(
    tmp_path: Path, sshd_program: Program
) -> None:
    with servers_of_ssh.running(tmp_path / "sshd", sshd_program, first=44) as sshd:
        hosts = sshd.toml(0, work_dir="{work}")
        with journey(tmp_path, seconds=0, hosts=hosts, FLEET_PROBE_SECS="1") as travel:
            travel.until(lambda: fitness(travel)[0] == "fit", "a fit host")
            pinned = (sshd.folder / "host_key").read_bytes()
            sshd.change_host_key()
            travel.until(lambda: fitness(travel)[0] == "quarantined", "a host in quarantine")
            assert "host key changed" in (fitness(travel)[1] or "")
            assert "security: a host is in quarantine" in travel.logs()
            task_id = travel.open_issue()
            travel.until_status(task_id, "created")
            why = fleet(travel, "why", task_id)
            assert "waits: needs python; host host-1 quarantined since" in why.stdout
            assert "host key changed" in why.stdout
            sshd.stop()
            (sshd.folder / "host_key").write_bytes(pinned)
            sshd.start()
            assert fleet(travel, "hosts", "resume", "host-1").returncode == 0
            travel.until_status(task_id, "review_pending", opened=1)

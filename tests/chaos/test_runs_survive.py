"""Kills parts of the system at random moments: no run is lost or done twice, and each log equals the host's.

FLEET_CHAOS_RUNS sets how many runs there are, FLEET_CHAOS_SEED repeats the moments of an earlier test.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.domain.run import Run
from app.domain.task import Task
from app.services import create_task
from app.store import logs, runs, tasks, views
from tests.find_sshd import Program
from tests.journeys.issue_journey import Journey, journey
from tests.patience import wait_until
from tests.sshd import Sshd, running

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1800)]

RUNS = int(os.environ.get("FLEET_CHAOS_RUNS", "16"))
SEED = int(os.environ.get("FLEET_CHAOS_SEED", "20261124"))
SECONDS = 150 + 3 * RUNS
PROCESSES = ("worker", "beat", "web", "valkey", "postgres", "connections", "served")
SCRIPT = "echo began $$; for i in 1 2 3 4 5 6 7 8 9 10; do seq $i 400; echo $i >&2; sleep 0.1; done; echo done"
SLOTS = {"agent_type": "talker", "max_concurrency": 3, "capabilities": []}
FLEET_TOML = """\
[[hosts]]
host_id = "localhost"
hostname = "localhost"
agents = [{{ agent_type = "talker", max_concurrency = 3, capabilities = [] }}]

[clis.talker]
argv = ["sh", "-c", {script}]

{others}
"""


@dataclass
class Chaos:
    """Kills something every now and then, as a seeded chance has it."""

    travel: Journey
    sshd: Sshd
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    next_at: float = 0.0

    def go_on(self) -> None:
        """Start again what died, and perhaps kill something."""
        keep(self.travel)
        self.strike()

    def strike(self) -> None:
        """Perhaps now: mostly a process of ours, now and then a supervisor or a CLI."""
        if time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + self.chance.uniform(0.3, 2.5)
        at_runs = self.killed["pid"] + self.killed["agent_pid"]
        if self.chance.random() < 0.4 and at_runs < RUNS // 4:
            self._strike_a_run(self.chance.choice(("pid", "agent_pid")))
        elif self.killed.total() - at_runs < RUNS // 3:
            self._strike_a_process(self.chance.choice(PROCESSES))

    def _strike_a_process(self, name: str) -> None:
        with suppress(AssertionError, psutil.NoSuchProcess, ProcessLookupError):  # it is dead already
            {"connections": self.sshd.cut, "served": self._kill_who_serves}.get(name, lambda: self.travel.kill(name))()
            self.killed[name] += 1

    def _kill_who_serves(self) -> None:
        """The supervisors that stay on the line of a host or at our own side, not those of runs: these have left."""
        worker = next(child.process for child in self.travel.stage.manager.children if child.name == "worker")
        ours = psutil.Process(worker.pid).children() if worker else []
        for process in [*self.sshd.processes(), *ours]:
            if process.cmdline()[-1:] == ["serve"]:
                process.kill()

    def _strike_a_run(self, who: str) -> None:
        going = [
            state
            for state in states(self.travel, self.sshd)
            if state[who] and not state["folder"].joinpath("result.json").exists()
        ]
        if going:
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(going)[who], signal.SIGKILL)
                self.killed[who] += 1


def states(travel: Journey, sshd: Sshd) -> list[dict[str, Any]]:
    """state.json of each run, on all hosts."""
    homes = [travel.stage.config.home / "work", *map(sshd.work, range(sshd.count))]
    found = [path for home in homes for path in home.glob("runs/*/*/state.json")]
    return [json.loads(path.read_text()) | {"folder": path.parent} for path in found]


@pytest.fixture
def sshd(tmp_path: Path, sshd_program: Program) -> Iterator[Sshd]:
    with running(tmp_path / "sshd", sshd_program, count=2, first=60) as sshd:
        yield sshd


def test_whatever_is_killed_no_run_is_lost_and_none_is_done_twice(tmp_path: Path, sshd: Sshd) -> None:
    toml = tmp_path / "chaos.toml"
    others = "\n".join(sshd.toml(at, agents=[SLOTS]) for at in range(sshd.count))
    toml.write_text(FLEET_TOML.format(script=json.dumps(SCRIPT), others=others))
    settings = {"FLEET_CONFIRM_SECS": "10", "FLEET_RECONCILE_SECS": "60", "FLEET_DISK_FLOOR_MB": "0"}
    with journey(tmp_path, 0.2, FLEET_CONFIG=str(toml), **settings) as travel:
        wanted = [ask_for_one(travel, number) for number in range(RUNS)]
        chaos = Chaos(travel, sshd, random.Random(SEED))
        wait_until(
            lambda: not unfinished(travel, wanted), "each task is completed", SECONDS, pause=0.2,
            meanwhile=chaos.go_on, details=lambda: f"{unfinished(travel, wanted)}; killed {chaos.killed}\n{travel.logs()}",
        )  # fmt: skip
        print(f"killed {dict(chaos.killed)} with seed {SEED}")
        assert_nothing_was_lost_or_done_twice(travel, sshd, wanted)
        travel.assert_history_holds()


def ask_for_one(travel: Journey, number: int) -> str:
    asked: create_task.TaskRequest = {
        "title": f"Talk {number}", "requirements": "Talk.", "repository": None, "required_capabilities": [],
        "priority": "normal", "execution_mode": "ssh_cli", "max_retries": 20, "wants_pull_request": False,
    }  # fmt: skip
    return create_task.request(travel.stage.fleet, asked).task_id


def keep(travel: Journey) -> None:
    """Whatever died is started again, however often."""
    for child in travel.stage.manager.children:
        child.deaths = child.deaths[-2:]
    travel.stage.manager.restart_dead()


def unfinished(travel: Journey, wanted: list[str]) -> list[str]:
    """Tasks that are not completed, those with an open outbox entry, and those whose host has not yet told the end of
    a run that was given up."""
    try:
        with travel.stage.fleet.engine.begin() as conn:
            found = [tasks.find(conn, task_id) for task_id in wanted]
            open_ = [task.task_id for task in found if has_open_outbox(conn, task) or is_untold(conn, task)]
    except SQLAlchemyError:
        return ["the database is being started again"]
    return [f"{task.task_id} {task.state}" for task in found if task.state != "completed" or task.task_id in open_]


def has_open_outbox(conn: Connection, task: Task) -> bool:
    return bool((views.task(conn, task.task_id) or {})["outbox"])


def is_untold(conn: Connection, task: Task) -> bool:
    return any(run.end == "expired" and not run.result for run in runs.of_task(conn, task.id))


def assert_nothing_was_lost_or_done_twice(travel: Journey, sshd: Sshd, wanted: list[str]) -> None:
    folders = {state["run"]: state for state in states(travel, sshd)}
    with travel.stage.fleet.engine.begin() as conn:
        rows = {task_id: runs.of_task(conn, tasks.find(conn, task_id).id) for task_id in wanted}
    assert set(folders) <= {run.name for ours in rows.values() for run in ours}
    for task_id, ours in rows.items():
        assert [run.end for run in ours].count("finished") == 1, task_id
        assert_one_after_the_other([folders[run.name] for run in ours if run.name in folders])
        for run in ours:
            if run.name in folders:
                assert_its_log_is_the_hosts_own(travel, run, folders[run.name]["folder"])


def assert_one_after_the_other(begun: list[dict[str, Any]]) -> None:
    """No CLI of a task was started while one of an earlier run was still there."""
    ends = [json.loads((state["folder"] / "result.json").read_text())["ended_at"] for state in begun]
    for end, later in zip(ends, begun[1:], strict=False):
        assert later["started_at"] >= end, (later["run"], end)


def assert_its_log_is_the_hosts_own(travel: Journey, run: Run, folder: Path) -> None:
    with travel.stage.fleet.engine.begin() as conn:
        for stream in ("stdout", "stderr"):
            path = folder / f"{stream}.log"
            said = path.read_bytes() if path.exists() else b""
            assert logs.read(conn, run.id, stream) == said, (run.name, stream, run.end, run.result)
    assert (folder / "stdout.log").read_bytes().count(b"began ") <= 1 if (folder / "stdout.log").exists() else True

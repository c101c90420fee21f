"""Plays the worker for a host on this machine, whose runs are real processes."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.domain.run import Run
from app.ports import Fleet
from app.services.dispatch import placement
from app.services.replay import differences
from app.services.runs import expiry
from app.store import logs, runs, tasks
from tests.builders import a_host, a_stored_task, apply
from tests.patience import wait_until
from workers.hosts.client import HostClient
from workers.runs import poll, start_stop
from workers.worker import Limits, Worker


class LocalHost:
    """A fleet with one host below `place`, whose CLI `coder` is a shell script; `worker` works for it."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Any,
        place: Path,
        script: str,
        hosts: int = 1,
        limits: Limits | None = None,
        client: HostClient | None = None,
        **template: Any,
    ) -> None:
        self.fleet, self.clock, self.place = fleet, clock, place
        self.worker = Worker(fleet, limits, client, poll_threads=4)
        cli = {"argv": ["sh", "-c", script], "parser": "raw", "silence_secs": 600, "timeout_secs": 600, **template}
        declared = [a_host(f"h{n}", slots=9, work_dir=str(place / f"h{n}")) for n in range(hosts)]
        with fleet.engine.begin() as conn:
            apply(conn, hosts=declared, clis={"coder": cli})

    def task(self, number: int = 12, **given: Any) -> int:
        """A task, placed and started."""
        with self.fleet.engine.begin() as conn:
            wanted = {"wants_pull": False, **given}
            task = a_stored_task(conn, f"acme/widgets#{number}", at=self.fleet.clock(), **wanted)
        self.start()
        return task.id

    def start(self) -> None:
        placement.place_waiting(self.fleet)
        while start_stop.deliver_due(self.worker):
            pass

    def poll(self, secs: float = 20) -> int:
        """Poll after so many seconds, and wait for every host."""
        self.clock.pass_(secs)
        ended = poll.poll_due(self.worker)
        for one in self.worker.poll_threads.polls.values():
            one.result()
        return ended

    def until(self, happened: Callable[[], Any], what: str = "it") -> Any:
        """Poll until a condition is true."""
        return wait_until(happened, what, meanwhile=lambda: self.poll(2))

    def ended(self, task: int, number: int = 1) -> Run:
        run: Run = self.until(lambda: (run := self.run(task, number)).ended_at and run, "the end of the run")
        return run

    def run(self, task: int, number: int = 1) -> Run:
        with self.fleet.engine.begin() as conn:
            run = runs.get(conn, task, number)
        assert run is not None
        return run

    def state(self, task: int) -> Any:
        with self.fleet.engine.begin() as conn:
            return tasks.load(conn, task)

    def log(self, task: int, number: int = 1, stream: str = "stdout") -> bytes:
        with self.fleet.engine.begin() as conn:
            return logs.read(conn, self.run(task, number).id, stream)

    def folder(self, task: int, number: int = 1) -> Path:
        run = self.run(task, number)
        return self.place / str(run.host_id) / "runs" / self.fleet.instance() / str(run.name)

    def file(self, task: int, name: str, number: int = 1) -> dict[str, Any]:
        """A JSON file of the run's folder, once it is there."""
        path = self.folder(task, number) / name
        self.wait_for(path)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def wait_for(self, path: Path) -> None:
        wait_until(path.exists, f"{path} exists")

    def pass_time(self, secs: float) -> None:
        """Let so many seconds pass while the control plane works."""
        for _ in range(max(1, int(secs // 10))):
            self.poll(min(secs, 10))
            expiry.expire_and_wake(self.fleet)

    def end_all(self) -> None:
        """Close the worker and end every process."""
        self.worker.close()
        for path in self.place.glob("*/runs/*/*/state.json"):
            state = json.loads(path.read_text())
            for pid in (state.get("agent_pid"), state.get("pid")):
                if pid and not path.with_name("result.json").exists():
                    try:
                        os.killpg(pid, signal.SIGKILL)
                    except (ProcessLookupError, PermissionError):
                        continue

    def assert_history_holds(self) -> None:
        assert differences(self.fleet)[1] == []

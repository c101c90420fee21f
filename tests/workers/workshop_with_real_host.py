"""A workshop whose host really runs CLIs; the test runs the tasks of the worker until a condition is true."""

import json
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.cli.demo.forge import git_commands
from app.domain.task import State
from app.services.runs import expiry
from app.store import host_polls, hosts
from tests.conftest import FakeClock
from tests.patience import wait_until
from tests.workshop import Workshop
from workers.runs import poll, start_stop
from workers.worker import Worker


class WorkshopWithRealHost:
    """The host's folder for us is `work`."""

    def __init__(
        self, shop: Workshop, work: Path, clock: FakeClock, declare: Callable[..., None], worker: Worker
    ) -> None:
        self.shop, self.work, self.clock, self.declare = shop, work, clock, declare
        self.worker = worker
        self._began = (time.monotonic(), datetime.now(UTC))
        self._skipped = timedelta()

    def turn(self) -> None:
        """Everything a worker does, once; hosts are polled without a pause."""
        self.clock.now = self._began[1] + timedelta(seconds=time.monotonic() - self._began[0]) + self._skipped
        fleet = self.shop.fleet
        self.shop.carry()
        self.shop.work()
        start_stop.deliver_due(self.worker)
        with fleet.engine.begin() as conn:
            for host in hosts.all_hosts(conn):
                host_polls.hurry(conn, host.host_id, fleet.clock())
        poll.poll_due(self.worker)
        expiry.expire_and_wake(fleet)

    def issue(self, label: str) -> int:
        """An issue for the CLI of that name, taken in."""
        number = self.shop.open_issue(labels=(f"agent:{label}",))
        self.turn()
        return number

    def issues(self, labels: Iterable[str]) -> dict[str, int]:
        """One for each of these CLIs."""
        return {label: self.issue(label) for label in labels}

    def until(self, happened: Callable[[], object], what: str) -> None:
        wait_until(happened, what, 60, meanwhile=self.turn, details=self.told, pause=0.2)

    def until_all(self, numbers: dict[str, int], state: State, run: int = 0) -> dict[str, dict[str, Any]]:
        """The newest run of each once all are in `state`, in that run or a later one."""

        def is_there(number: int) -> bool:
            task = self.shop.task(number)
            return task.state is state and task.run >= run

        self.until(lambda: all(map(is_there, numbers.values())), f"all {state}")
        return {cli: self.newest(number) for cli, number in numbers.items()}

    def until_state(self, number: int, state: State, run: int = 0) -> dict[str, Any]:
        return self.until_all({"": number}, state, run)[""]

    def newest(self, number: int) -> dict[str, Any]:
        shown: dict[str, Any] = self.shop.shown(number)["runs"][-1]
        return shown

    def told(self) -> str:
        """The state of every task, for the text of a failure."""
        shown = [self.shop.shown(task.issue_number or 0) for task in self.shop.tasks()]
        states = [[one["status"], one.get("reason"), one.get("runs")] for one in shown]
        return json.dumps(states, indent=1, default=str)

    def skip(self, seconds: float) -> None:
        self._skipped += timedelta(seconds=seconds)

    def git(self, *words: str) -> str:
        """Asked of the forge's own repository."""
        return git_commands.text(self.shop.forge.repository("acme/widgets").path, *words)

    def files(self, number: int) -> set[str]:
        """What the task's branch holds on the forge."""
        return set(self.git("ls-tree", "-r", "--name-only", str(self.shop.task(number).branch)).splitlines())

    def text(self, number: int, path: str) -> str:
        return self.git("show", f"{self.shop.task(number).branch}:{path}")

    def pid(self, run: str) -> int:
        (path,) = self.work.glob(f"runs/*/{run}/state.json")
        return int(json.loads(path.read_text())["agent_pid"])

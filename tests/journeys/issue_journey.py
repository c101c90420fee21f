"""Takes issues through the whole system, and checks from outside how they ended."""

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from app.cli.demo.forge import FakeForge
from app.cli.demo.forge.sample_data import add_sample_data
from app.cli.demo.stage import CAPABILITY, LOCALHOST, REPOSITORY, RunningForge, Stage, stage
from app.services.replay import differences
from app.store import views
from tests.fakes.checked_forge import checked_forge
from tests.patience import wait_until


class Journey:
    """One stage, one forge, and the issues that travel over it."""

    def __init__(self, set_: Stage, forge: FakeForge) -> None:
        self.stage, self.forge = set_, forge
        self.meanwhile: list[Callable[[], object]] = [
            set_.manager.restart_dead
        ]  # runs again and again while a test waits

    def open_issue(self, title: str = "Fix off-by-one in total()", body: str = "The last price is left out.") -> str:
        label = self.stage.alice.label(REPOSITORY, CAPABILITY)
        return f"{REPOSITORY}#{self.stage.alice.open_issue(REPOSITORY, title, body, [label])}"

    def task(self, task_id: str) -> dict[str, Any]:
        with self.stage.fleet.engine.begin() as conn:
            return views.task(conn, task_id) or {"status": "unknown", "events": [], "runs": []}

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Wait for something to be so, keeping the processes alive; fails with the logs when it never is."""
        wait_until(lambda: self._is_so(happened), what, 60, meanwhile=self._go_on, details=self.logs, pause=0.1)

    def _go_on(self) -> None:
        for step in self.meanwhile:
            step()

    @staticmethod
    def _is_so(happened: Callable[[], object]) -> bool:
        """A database that is being started again has nothing to say yet."""
        try:
            return bool(happened())
        except OperationalError:
            return False

    @contextmanager
    def held(self) -> Iterator[str]:
        """A title: the CLI of an issue with this title works on until the block ends."""
        title = f"Held {secrets.token_hex(4)}"
        self.stage.hold.write_text(title)
        try:
            yield title
        finally:
            self.stage.hold.unlink()

    def until_status(self, task_id: str, status: str, opened: int = 0) -> dict[str, Any]:
        def is_so() -> bool:
            task = self.task(task_id)
            # The forge may report our own pull request to one worker before another has recorded that it opened it.
            offers = [
                event for event in task["events"] if event["fact"] == "pull_opened" and event["to"] == "review_pending"
            ]
            return bool(task["status"] == status and len(offers) >= opened)

        self.until(is_so, f"{task_id} {status}")
        return self.task(task_id)

    def until_outbox_is_empty(self, task_id: str) -> dict[str, Any]:
        self.until(lambda: not self.task(task_id)["outbox"], "an empty outbox")
        return self.task(task_id)

    def to_the_merge(self, task_id: str) -> dict[str, Any]:
        """Review once, merge, and wait until everything is told."""
        pull = self.until_status(task_id, "review_pending", opened=1)["pr_number"]
        self.stage.reviewer.request_changes(REPOSITORY, pull, "Please use sum().")
        self.until_status(task_id, "review_pending", opened=2)
        self.stage.reviewer.merge(REPOSITORY, pull)
        self.until_status(task_id, "completed")
        return self.until_outbox_is_empty(task_id)

    def kill(self, name: str, number: int = 9) -> int:
        child = next(child for child in self.stage.manager.children if child.name == name)
        assert child.process is not None
        os.kill(child.process.pid, number)
        return child.process.pid

    def agent_pids(self, task_id: str) -> list[int]:
        """The processes of the CLI in the runs of a task, as the host knows them."""
        home = self.stage.config.home / "work" / "runs"
        files = [file for run in self.task(task_id)["runs"] for file in home.glob(f"*/{run['name']}*/state.json")]
        states = [json.loads(file.read_text()) for file in files]
        return [state["agent_pid"] for state in states if state.get("agent_pid")]

    def pulls(self, task: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Every pull request, or those of a task's branch."""
        asked = {"state": "all", "limit": "50"}
        found = self.forge.client(self.stage.alice.token).get(f"/repos/{REPOSITORY}/pulls", params=asked).json()
        return [one for one in found if task is None or one["head"]["ref"] == task["branch_name"]]

    def commit_message(self, task: dict[str, Any]) -> str:
        """The message of the newest commit on a task's branch, as the forge has it."""
        path = self.forge.repository(REPOSITORY).path
        words = ["git", "-C", str(path), "log", "-1", "--format=%B", task["branch_name"]]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def comment_kinds(self, task_id: str) -> list[str]:
        """The kinds of our comments on an issue, the status first: the order of two outbox entries is chance."""
        bodies = self.stage.alice.comments(REPOSITORY, int(task_id.rpartition("#")[2]))
        kinds = [body.rpartition("kind=")[2].removesuffix(" -->") for body in bodies if "<!-- fleet:" in body]
        return sorted(kinds, key=lambda kind: kind != "status")

    def assert_history_holds(self) -> None:
        _, differing = differences(self.stage.fleet)
        assert differing == []

    def logs(self) -> str:
        files = sorted((self.stage.config.home / "log").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in files)


@contextmanager
def journey(tmp_path: Path, seconds: float = 0.2, hosts: str = LOCALHOST, **environ: str) -> Iterator[Journey]:
    """A forge of our own, furnished as in the demo, and the whole system beside it."""
    with checked_forge(tmp_path / "forge") as forge:
        users = add_sample_data(forge)
        with stage(seconds, RunningForge(forge.url, users), hosts, **environ) as set_:
            yield Journey(set_, forge)
        assert forge.violations == []

"""The real Codex and Claude Code on a real host, real git and a forge: delivered, reviewed, limited, broken, killed."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.task import State
from app.services import quota, rescue
from app.store import runs as rows
from tests import realclis
from tests.builders import a_host, apply
from tests.conftest import FakeClock
from tests.fakes.forge import FakeForge, plumbing
from tests.workshop import Workshop
from workers import looks, runs

PATIENCE_SECS = 60.0
BOTH = pytest.mark.parametrize("cli", ["codex", "claude"])
ASKED = {"write": "hello.txt", "content": "hello\n"}
REVIEWED = {"write": "second.txt", "content": "as the review asked\n"}
SCENARIOS: dict[str, Any] = {
    "asked": [ASKED, {"say": "Done."}],
    "reviewed": [REVIEWED, {"say": "Done again."}],
    "limited": [ASKED, {"usage_limit": 3600}],
    "nosy": [{"run": "env > env.txt; ps -eo args > ps.txt; cat .git > git.txt"}, {"say": "I looked around."}],
    "rate-limit-forever": [{"rate_limit": 1}],
    "killed": [ASKED, {"say": "slow words " * 60, "delay": 0.5}],
}


class Bench:
    """A workshop whose host really runs CLIs: the test turns the rounds until something is so."""

    def __init__(self, shop: Workshop, folder: Path, clock: FakeClock, declare: Callable[..., None]) -> None:
        self.shop, self.folder, self.clock, self.declare = shop, folder, clock, declare
        self._began = (time.monotonic(), datetime.now(UTC))
        self._skipped = timedelta()

    def turn(self) -> None:
        """One round of everything a worker does."""
        self.clock.now = self._began[1] + timedelta(seconds=time.monotonic() - self._began[0]) + self._skipped
        fleet = self.shop.fleet
        self.shop.carry()
        self.shop.work()
        runs.pay(fleet)
        looks.look(fleet)
        rescue.rescue(fleet)

    def issue(self, label: str) -> int:
        """An issue for the CLI of that name, taken in."""
        number = self.shop.open_issue(labels=(f"agent:{label}",))
        self.turn()
        return number

    def until(self, happened: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE_SECS
        while not happened():
            assert time.monotonic() < until, (
                f"never: {what}\n{[self.shop.shown(task.issue_number or 0) for task in self.shop.tasks()]}"
            )
            self.turn()
            time.sleep(0.05)

    def until_state(self, number: int, state: State, run: int = 0) -> dict[str, Any]:
        """The task's newest run once the task is in `state`, in that run or a later one."""
        self.until(
            lambda: self.shop.task(number).state is state and self.shop.task(number).run >= run, f"#{number} {state}"
        )
        newest: dict[str, Any] = self.shop.shown(number)["runs"][-1]
        return newest

    def skip(self, seconds: float) -> None:
        self._skipped += timedelta(seconds=seconds)

    def git(self, *words: str) -> str:
        """Asked of the forge's own repository."""
        (path,) = self.folder.glob("forge/**/widgets.git")
        return plumbing.text(path, *words)

    def files(self, number: int) -> set[str]:
        """What the task's branch holds on the forge."""
        return set(self.git("ls-tree", "-r", "--name-only", str(self.shop.task(number).branch)).splitlines())

    def text(self, number: int, path: str) -> str:
        return self.git("show", f"{self.shop.task(number).branch}:{path}")

    def pid(self, run: str) -> int | None:
        (path,) = self.folder.glob(f"work/runs/*/{run}/state.json")
        return json.loads(path.read_text()).get("agent_pid")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def programs() -> Path:
    return realclis.bin_folder()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with realclis.models(SCENARIOS) as found:
        yield found


@pytest.fixture
def bench(
    programs: Path, address: str, forge: FakeForge, make_fleet: Any, tmp_path: Path, clock: FakeClock
) -> Callable[..., Bench]:
    """Makes a bench whose host has these CLIs: name, preset, scenario, and what else is said of it."""

    def make(*wanted: tuple[str, str, str, dict[str, Any]], slots: int = 1, **rule: Any) -> Bench:
        clock.now = datetime.now(UTC)

        def clis(*ones: tuple[str, str, str, dict[str, Any]]) -> dict[str, Any]:
            return {
                name: realclis.PRESETS[preset](
                    programs, tmp_path / name, **{"address": address, "scenario": scenario} | given
                )
                for name, preset, scenario, given in ones
            }

        agents = [{"agent_type": name, "max_concurrency": slots, "capabilities": [name]} for name, *_ in wanted]
        rules: list[dict[str, Any]] = [
            {
                "forge": "main",
                "name": "acme/*",
                "cli": None,
                "max_retries": 2,
                "task_timeout_secs": 60,
                "validation": [],
            }
            | rule
        ]
        declared: dict[str, Any] = {
            "hosts": [a_host(agents=agents, work_dir=str(tmp_path / "work"))],
            "repositories": rules,
        }
        shop = Workshop(forge, make_fleet, clis=clis(*wanted), **declared)

        def declare(cli: str, scenario: str) -> None:
            """From now on the models play another scenario for this CLI."""
            with shop.fleet.engine.begin() as conn:
                apply(conn, forge_url=forge.url, clis=clis((cli, cli, scenario, {})), **declared)

        return Bench(shop, tmp_path, clock, declare)

    return make


@BOTH
def test_an_issue_becomes_a_pull_request_and_its_review_goes_on_in_the_same_session(bench: Any, cli: str) -> None:
    at = bench(
        (cli, cli, "asked", {}),
        commit={"author_name": "Robot", "author_email": "robot@example.org", "trailers": ["Team: fleet"]},
    )
    number = at.issue(cli)
    first = at.until_state(number, State.REVIEW_PENDING)
    assert first["verdict"] == "succeeded" and first["usage"]["input_tokens"] == 2400
    assert first["progress"]["files"] and first["progress"]["session_id"] == first["session"]
    assert "hello.txt" in at.files(number)
    commit = at.git("log", "-1", "--format=%an <%ae>%n%B", first["commits"][0])
    assert commit.startswith("Robot <robot@example.org>") and "Team: fleet" in commit
    at.declare(cli, "reviewed")
    at.shop.review(at.shop.task(number).pr_number or 0, "Write second.txt, too.")
    second = at.until_state(number, State.REVIEW_PENDING, run=2)
    assert (second["session"], second["verdict"]) == (first["session"], "succeeded")
    assert second["usage"]["input_tokens"] == 2400, "only what this run used"
    assert "second.txt" in at.files(number)


@BOTH
def test_a_usage_limit_in_the_midst_of_work_parks_the_task_and_its_session_goes_on_after_the_reset(
    bench: Any, cli: str
) -> None:
    at = bench((cli, cli, "limited", {}))
    number = at.issue(cli)
    first = at.until_state(number, State.PARKED)
    task = at.shop.task(number)
    assert first["verdict"] == "limited" and task.retry_count == 0 and task.due_at
    assert 3500 < (task.due_at - datetime.now(UTC)).total_seconds() < 3740
    other = at.issue(cli)
    for _ in range(3):
        at.turn()
    assert at.shop.task(other).state is State.CREATED
    at.shop.close(other)
    at.declare(cli, "reviewed")
    at.skip(3700)
    second = at.until_state(number, State.REVIEW_PENDING, run=2)
    assert (second["session"], second["verdict"]) == (first["session"], "succeeded")
    with at.shop.fleet.engine.begin() as conn:
        assert quota.limits(conn)[0]["closed_until"] is None


FAILURES = {
    "codex": {
        "unauthorized": "auth",
        "rate-limit-forever": "rate_limited",
        "server-error": "server_error",
        "cut": "network",
    },
    "claude": {
        "unauthorized": "auth",
        "rate-limit-forever": "rate_limited",
        "server-error": "server_error",
        "cut": "network",
    },
}


@BOTH
def test_what_goes_wrong_is_named_with_four_and_more_at_once_on_a_host(bench: Any, cli: str) -> None:
    """401, 429, 500, a cut stream, a server that nobody reaches; each with a CLI of its own, all at the same time."""
    nowhere = ("nowhere", cli, "say", {"address": "http://127.0.0.1:9", "timeout_secs": 4})
    at = bench(*((f"{name}", cli, name, {}) for name in FAILURES[cli]), nowhere, max_retries=0)
    numbers = {name: at.issue(name) for name in (*FAILURES[cli], "nowhere")}
    at.until(
        lambda: all(at.shop.task(n).state in (State.FAILED, State.PARKED) for n in numbers.values()), "all have ended"
    )
    ended = {name: at.shop.shown(n)["runs"][-1] for name, n in numbers.items()}
    assert {run["verdict"] for name, run in ended.items()} <= {"failed", "limited", "killed"}
    for name, failure in FAILURES[cli].items():
        with at.shop.fleet.engine.begin() as conn:
            run = rows.named(conn, ended[name]["name"])
        assert run and run["outcome"]["failure"] == failure, ended[name]
    states = {name: (at.shop.task(n).state, at.shop.task(n).reason) for name, n in numbers.items()}
    assert states["rate-limit-forever"] == (State.PARKED, "limit")
    assert states["unauthorized"] == (State.FAILED, "auth")
    assert states["nowhere"][1] in ("timed_out", "network")


@BOTH
def test_ended_by_a_signal_in_the_midst_of_work_it_goes_on_in_its_session(bench: Any, cli: str) -> None:
    at = bench((cli, cli, "killed", {}))
    number = at.issue(cli)
    at.until(
        lambda: (
            (at.shop.shown(number).get("runs") or [{}])[-1].get("progress", None)
            and at.shop.run(number)["progress"]["files"]
        ),
        "a file was written",
    )
    pid = at.pid(at.shop.run(number)["name"])
    assert pid
    os.killpg(pid, signal.SIGTERM)
    at.until(lambda: at.shop.task(number).state is State.CREATED, "the run has ended")
    first = at.shop.shown(number)["runs"][0]
    assert first["verdict"] == "killed" and first["session"]
    at.declare(cli, "reviewed")
    at.skip(30)
    second = at.until_state(number, State.REVIEW_PENDING, run=2)
    assert second["session"] == first["session"]
    assert {"hello.txt", "second.txt"} <= at.files(number)


@BOTH
def test_it_sees_no_credential_of_the_forge(bench: Any, cli: str) -> None:
    flags: dict[str, Any] = {"flags": [{"argv": ["--allowedTools", "Bash"]}]} if cli == "claude" else {}
    at = bench((cli, cli, "nosy", flags))
    number = at.issue(cli)
    at.until_state(number, State.REVIEW_PENDING)
    seen = "".join(at.text(number, name) for name in ("env.txt", "ps.txt"))
    secret = at.shop.fleet.config.secret("FLEET_FORGE_TOKEN")
    assert secret and "FLEET_RUN=" in seen
    assert secret not in seen and "FLEET_GIT" not in seen and "ASKPASS" not in seen
    for path in at.folder.rglob("*"):
        if path.is_file() and "forge" not in path.relative_to(at.folder).parts[:1]:
            assert secret.encode() not in path.read_bytes(), path


def test_a_budget_ends_a_run_that_works_on(bench: Any) -> None:
    at = bench(("codex", "codex", "slow", {}), budget={"run": {"minutes": 0.05}})
    number = at.issue("codex")
    at.until_state(number, State.RUNNING)
    run = at.until_state(number, State.PARKED)
    assert at.shop.task(number).reason == "budget" and run["end"] == "cancelled"

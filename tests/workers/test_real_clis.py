"""The real Codex and Claude Code on a host behind a real sshd, with real git and a forge.

They deliver, answer reviews, meet limits, fail and are killed. Both work at the same time in every test; only the PATH of
a login finds them.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.cli.demo.forge import FakeForge
from app.clis import catalog, command_line
from app.domain.host import Fitness
from app.domain.quota import Amount
from app.domain.task import State
from app.services.dispatch import budgets, credentials
from app.store import hosts
from tests import real_clis
from tests import sshd as servers_of_ssh
from tests.builders import apply
from tests.conftest import FakeClock
from tests.find_sshd import Program
from tests.patience import patient
from tests.workers.scenarios import SCENARIOS
from tests.workers.supervisor.account import KEY, User, delivering, isolating, user
from tests.workers.workshop_with_real_host import WorkshopWithRealHost
from tests.workshop import Workshop

__all__ = ["delivering", "isolating", "user"]  # fixtures
BOTH = ("codex", "claude")
CAP, EACH_SECOND = 3000, 1242  # tokens, and as many an answer of the models has
Wanted = tuple[str, str, str, dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Codex leaves an empty folder for each user at a fixed path."""
    before = set(Path("/tmp").glob("codex-daemon-*"))
    yield
    for left in set(Path("/tmp").glob("codex-daemon-*")) - before:
        with suppress(OSError):
            left.rmdir()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with real_clis.models(SCENARIOS) as found:
        yield found


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, sshd_program: Program) -> Iterator[servers_of_ssh.Sshd]:
    """A host whose user has both CLIs on the PATH of a login."""
    programs = real_clis.bin_folder()
    with servers_of_ssh.running(tmp_path_factory.mktemp("ground"), sshd_program, first=60) as sshd:
        real_clis.furnish(sshd.home, programs)
        yield sshd


@pytest.fixture
def bench(
    ground: servers_of_ssh.Sshd,
    address: str,
    forge: FakeForge,
    make_fleet: Any,
    make_worker: Any,
    tmp_path: Path,
    clock: FakeClock,
) -> Callable[..., WorkshopWithRealHost]:
    """Makes a bench whose host has these CLIs: name, preset, scenario, and what else is said of it."""

    def make(*wanted: Wanted, slots: int = 1, **rule: Any) -> WorkshopWithRealHost:
        clock.now = datetime.now(UTC)
        work = ground.work() / tmp_path.name

        def clis(*ones: Wanted) -> dict[str, Any]:
            return {
                name: real_clis.PRESETS[preset](
                    ground.home, given.get("address", address), scenario, timeout_secs=given.get("timeout_secs", 600)
                )
                for name, preset, scenario, given in ones
            }

        agents = [{"agent_type": name, "max_concurrency": slots, "capabilities": [name]} for name, *_ in wanted]
        plain = {"forge": "main", "name": "acme/*", "cli": None, "max_retries": 2, "task_timeout_secs": 600}
        declared: dict[str, Any] = {
            "hosts": [ground.declared(agents=agents, work_dir=str(work))],
            "repositories": [plain | {"validation": []} | rule],
        }
        shop = Workshop(forge, make_fleet, clis=clis(*wanted), **declared)

        def declare(scenario: str) -> None:
            """From now on the models play another scenario for every CLI."""
            again = clis(*((name, preset, scenario, given) for name, preset, _, given in wanted))
            with shop.fleet.engine.begin() as conn:
                apply(conn, forge_url=forge.url, clis=again, **declared)

        at = WorkshopWithRealHost(shop, work, clock, declare, make_worker(shop.fleet))
        at.until(lambda: at.worker.prober.probe_due() or _is_fit(shop), "a fit host")
        return at

    return make


def _is_fit(shop: Workshop) -> bool:
    with shop.fleet.engine.begin() as conn:
        return all(host.fitness is Fitness.FIT for host in hosts.all_hosts(conn))


def both(scenario: str) -> list[Wanted]:
    return [(cli, cli, scenario, {}) for cli in BOTH]


def test_an_issue_becomes_a_pull_request_and_the_same_session_answers_its_review(
    bench: Any, ground: servers_of_ssh.Sshd
) -> None:
    commit = {"author_name": "Robot", "author_email": "robot@example.org", "trailers": ["Team: fleet"]}
    at = bench(*both("asked"), commit=commit)
    numbers = at.issues(BOTH)
    first = at.until_all(numbers, State.REVIEW_PENDING)
    for cli, number in numbers.items():
        run = first[cli]
        assert (run["host_id"], run["verdict"], run["usage"]["input_tokens"]) == ("host-1", "succeeded", 3600), cli
        assert run["progress"]["files"] and run["progress"]["session_id"] == run["session"], cli
        assert at.text(number, "copy.txt") == "hello\nfrom-shell", cli
        said = at.git("log", "-1", "--format=%an <%ae>%n%B", run["commits"][0])
        assert said.startswith("Robot <robot@example.org>") and "Team: fleet" in said
        _assert_no_foreign_secret_seen(at, cli, number)
    _assert_no_secret_on_disk(at, ground.folder)
    with at.shop.fleet.engine.begin() as conn:
        warned = {row["credential"]: row["warning"] for row in credentials.limits(conn)}
    assert "91 %" in warned["codex"] and "91%" in warned["claude"], warned
    at.declare("reviewed")
    for number in numbers.values():
        at.shop.review(at.shop.task(number).pr_number or 0, "Write second.txt, too.")
    second = at.until_all(numbers, State.REVIEW_PENDING, run=2)
    for cli, number in numbers.items():
        assert (second[cli]["session"], second[cli]["verdict"]) == (first[cli]["session"], "succeeded"), cli
        assert second[cli]["usage"]["input_tokens"] == 2400, "only what this run used"
        assert {"hello.txt", "second.txt"} <= at.files(number)
    assert len(at.shop.pulls()) == 2


def _assert_no_foreign_secret_seen(at: WorkshopWithRealHost, cli: str, number: int) -> None:
    """In its environment, in `ps` while the other CLI worked, and in the configuration of git."""
    seen = "".join(at.text(number, name) for name in ("env.txt", "ps.txt", "git.txt", "config.txt"))
    others = [key for name, key in real_clis.KEYS.items() if name != cli]
    assert "FLEET_RUN=" in seen and "FLEET_GIT" not in seen and "ASKPASS" not in seen
    assert [one for one in (*_secrets(at), *others) if one in seen] == [], cli


def _assert_no_secret_on_disk(at: WorkshopWithRealHost, host: Path) -> None:
    """No secret of ours in any file of the host, and no key of a CLI in what we keep there."""
    files = [path for path in host.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if any(one.encode() in path.read_bytes() for one in _secrets(at))] == []
    ours = [path for path in files if at.work in path.parents and path.name != "env.txt"]  # where it noted its own
    keys = [key.encode() for key in real_clis.KEYS.values()]
    assert ours and [path for path in ours if any(key in path.read_bytes() for key in keys)] == []


def _secrets(at: WorkshopWithRealHost) -> list[str]:
    config = at.shop.fleet.config
    names = ("FLEET_FORGE_TOKEN", "FLEET_WEBHOOK_SECRET", "FLEET_OPERATOR_TOKEN", "FLEET_ENROLL_TOKEN")
    found = [config.secret(name) for name in names]
    return [one for one in found if one or pytest.fail("a secret is not set")]


def test_a_usage_limit_parks_the_task_and_its_session_continues_after_the_reset(bench: Any) -> None:
    at = bench(*both("limited"))
    numbers = at.issues(BOTH)
    first = at.until_all(numbers, State.PARKED)
    for cli, number in numbers.items():
        task = at.shop.task(number)
        assert first[cli]["verdict"] == "limited" and task.retry_count == 0 and task.due_at, cli
        assert 3500 < (task.due_at - datetime.now(UTC)).total_seconds() < 3740, cli
    other = at.issues(BOTH)
    for _ in range(3):
        at.turn()
    assert {at.shop.task(number).state for number in other.values()} == {State.CREATED}
    for number in other.values():
        at.shop.close(number)
    at.declare("reviewed")
    at.skip(3700)
    second = at.until_all(numbers, State.REVIEW_PENDING, run=2)
    for cli, number in numbers.items():
        assert (second[cli]["session"], second[cli]["verdict"]) == (first[cli]["session"], "succeeded"), cli
        assert "hello.txt" in at.files(number)
    with at.shop.fleet.engine.begin() as conn:
        assert {row["closed_until"] for row in credentials.limits(conn)} == {None}


FAILURES = {
    "unauthorized": (State.PARKED, "auth", "auth"),
    "rate-limit-forever": (State.PARKED, "limit", "rate_limited"),
    "server-error": (State.FAILED, "server_error", "server_error"),
    "cut": (State.FAILED, "network", "network"),
}


def test_each_failure_is_named_while_ten_runs_fail_at_once_on_a_host(bench: Any) -> None:
    """401, 429, 500, a cut stream and an unreachable server, for each CLI, each with a credential of its own."""
    broken: list[Wanted] = [(f"{cli}-{what}", cli, what, {}) for cli in BOTH for what in FAILURES]
    away = {"address": "http://127.0.0.1:9", "timeout_secs": 4}
    at = bench(*broken, *((f"{cli}-away", cli, "say", away) for cli in BOTH), max_retries=0)
    numbers = at.issues([*(name for name, *_ in broken), *(f"{cli}-away" for cli in BOTH)])
    over = (State.FAILED, State.PARKED)
    at.until(lambda: all(at.shop.task(number).state in over for number in numbers.values()), "all have ended")
    for name, _, what, _ in broken:
        task, run = at.shop.task(numbers[name]), at.newest(numbers[name])
        assert run["verdict"] in ("failed", "limited") and task.retry_count == 0, name
        assert (task.state, task.reason, run["failure"]) == FAILURES[what], name
    assert {at.shop.task(numbers[f"{cli}-away"]).reason for cli in BOTH} <= {"timed_out", "network"}
    waits = at.issue("codex-unauthorized")
    at.turn()
    assert at.shop.task(waits).state is State.CREATED, "the login was refused: no other task is started with it"


def test_a_run_that_a_signal_ended_continues_in_its_session(bench: Any) -> None:
    at = bench(*both("killed"))
    numbers = at.issues(BOTH)

    def wrote(number: int) -> bool:
        return bool((at.newest(number).get("progress") or {}).get("files")) if at.shop.task(number).run else False

    at.until(lambda: all(map(wrote, numbers.values())), "a file was written by each")
    for number in numbers.values():
        os.killpg(at.pid(at.shop.run(number).name), signal.SIGTERM)
    first = at.until_all(numbers, State.CREATED)
    at.declare("reviewed")
    at.skip(30)
    second = at.until_all(numbers, State.REVIEW_PENDING, run=2)
    for cli, number in numbers.items():
        assert first[cli]["verdict"] == "killed" and first[cli]["session"], cli
        assert second[cli]["session"] == first[cli]["session"], cli
        assert {"hello.txt", "second.txt"} <= at.files(number)


@pytest.mark.usefixtures("isolating")
def test_each_cli_delivers_while_the_kernel_isolates_it_and_codex_keeps_its_sandbox(
    delivering: User, address: str
) -> None:
    """As an ordinary user: the kernel does not isolate root, who may run the tests."""
    home, programs = delivering.home, real_clis.for_everybody(real_clis.bin_folder(), delivering.home)
    real_clis.furnish(home, programs)
    delivering.own_home()
    delivering.start("other", f"touch works; until [ -e {home}/done ]; do sleep 0.05; done", env={"OTHER_KEY": KEY})
    for cli in BOTH:
        template = catalog.template_of(cli, real_clis.PRESETS[cli](home, address, "apart"))
        delivering.start(cli, "", **command_line.fill_template(template, None), prompt="Do it.")
    for cli in BOTH:
        result, work = delivering.result(cli, 30), delivering.workspace(cli)
        assert (result["end"], result["pushed"]) == ("finished", True), (cli, result, delivering.logs(cli))
        assert (work / "privileges.txt").read_text().split() == ["NoNewPrivs:", "1"], cli
        assert KEY not in (work / "seen.txt").read_bytes().decode(errors="replace"), cli
        assert ("denied" in (work / "sandbox.txt").read_text()) is (cli == "codex"), cli
    (home / "done").touch()
    assert delivering.result("other")["end"] == "finished"


def test_a_budget_in_tokens_ends_a_run_and_its_session_continues_once_it_is_raised(bench: Any) -> None:
    at = bench(*both("works-on"), budget={"run": {"tokens": CAP}})
    numbers = at.issues(BOTH)
    first = at.until_all(numbers, State.PARKED)
    for cli, number in numbers.items():
        task, used = at.shop.task(number), first[cli]["usage"]
        assert (task.reason, first[cli]["end"], first[cli]["verdict"]) == ("budget", "cancelled", "killed"), cli
        assert CAP <= used["input_tokens"] + used["output_tokens"] < CAP + patient(7) * EACH_SECOND, (
            "within 5 s, and what a busy machine takes"
        )
        budgets.raise_budget(at.shop.fleet, task.task_id, Amount(tokens=100_000))
    at.declare("reviewed")
    second = at.until_all(numbers, State.REVIEW_PENDING, run=2)
    for cli, number in numbers.items():
        assert (second[cli]["session"], second[cli]["verdict"]) == (first[cli]["session"], "succeeded"), cli
        assert second[cli]["usage"]["input_tokens"] == 2400, "only what this run used"
        assert {"hello.txt", "second.txt"} <= at.files(number)

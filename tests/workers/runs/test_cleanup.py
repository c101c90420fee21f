"""Finished runs are released on their hosts, by age, state and free disk; unpushed work is saved first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from app.cli.demo.forge import FakeForge
from app.domain.lifecycle import FactKind
from app.domain.task import State
from app.ports import Fleet
from app.services import operator
from app.services.dispatch.start_order import task_name
from app.store import runs
from tests.builders import a_host, apply
from tests.hosts import LocalHost
from tests.workshop import WIDGETS, Workshop
from workers.runs.cleanup import release_finished

DAY = 86400.0


def worktree(here: LocalHost, task: int) -> Path:
    return here.place / "h0" / "work" / here.fleet.instance() / task_name(here.state(task))


def test_a_finished_run_is_released_after_its_time_and_its_work_is_saved(host: Callable[..., LocalHost]) -> None:
    here = host("echo precious > file")
    task = here.task()
    here.ended(task)
    here.clock.pass_(DAY - 100)
    assert release_finished(here.worker) == 0
    here.clock.pass_(200)
    assert release_finished(here.worker) == 1
    assert not here.folder(task).exists() and not worktree(here, task).exists()
    saved = here.run(task).saved or ""
    assert saved.endswith(".tar.gz") and Path(saved).stat().st_size > 0
    assert release_finished(here.worker) == 0


def test_a_failed_run_stays_longer(host: Callable[..., LocalHost]) -> None:
    here = host("exit 3")
    task = here.task(max_retries=0)
    here.ended(task)
    assert here.state(task).state is State.FAILED
    here.clock.pass_(2 * DAY)
    assert release_finished(here.worker) == 0
    here.clock.pass_(6 * DAY)
    assert release_finished(here.worker) == 1


def test_the_runs_of_an_open_task_stay(host: Callable[..., LocalHost]) -> None:
    here = host("exit 3")
    task = here.task()
    here.ended(task)
    here.clock.pass_(30 * DAY)
    assert release_finished(here.worker) == 0
    assert here.folder(task).exists()


def test_runs_are_released_at_once_if_the_disk_is_nearly_full(
    host: Callable[..., LocalHost], make_fleet: Callable[..., Fleet]
) -> None:
    here = host("exit 0", fleet=make_fleet(FLEET_DISK_FLOOR_MB=str(1 << 29)))
    task = here.task()
    here.ended(task)
    assert release_finished(here.worker) == 1
    assert not here.folder(task).exists()


def test_a_run_whose_end_was_never_seen_is_cancelled_before_its_release(host: Callable[..., LocalHost]) -> None:
    here = host("sleep 600")
    task = here.task()
    pid = here.file(task, "state.json")["pid"]
    here.pass_time(10)
    operator.request(here.fleet, "acme/widgets#12", FactKind.CANCEL)
    expire(here, task)
    here.clock.pass_(2 * DAY)
    released = here.until(lambda: release_finished(here.worker), "the release")
    assert released == 1
    assert not here.folder(task).exists()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def expire(here: LocalHost, task: int) -> None:
    with here.fleet.engine.begin() as conn:
        assert runs.end(conn, here.run(task).id, here.fleet.clock(), "expired")


def test_one_worker_cleans_up_in_an_interval(host: Callable[..., LocalHost]) -> None:
    here = host("true")
    here.ended(here.task())
    here.clock.pass_(2 * DAY)
    assert release_finished(here.worker, every=60) == 1
    here.ended(here.task(13))
    here.clock.pass_(30)
    assert release_finished(here.worker, every=60) == 0


def test_unpushed_work_is_pushed_to_a_branch_of_its_own_first(
    workshop: Workshop, forge: FakeForge, clock: Any, tmp_path: Path
) -> None:
    here = LocalHost(workshop.fleet, clock, tmp_path / "hosts", "echo half > half; exit 3")
    with workshop.fleet.engine.begin() as conn:
        declare(conn, workshop, here)
    number = workshop.open_issue()
    workshop.converge()
    here.start()
    task = workshop.task(number)
    here.ended(task.id)
    workshop.close(number)
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED
    clock.pass_(2 * DAY)
    assert release_finished(here.worker) == 1
    assert here.run(task.id).saved == f"refs/heads/wip/{task_name(task)}"
    assert workshop.fleet.forges("main").branch_head(WIDGETS, f"wip/{task_name(task)}")
    here.end_all()


def declare(conn: Any, workshop: Workshop, here: LocalHost) -> None:
    """The workshop's forge, with the host whose CLI is a script."""
    cli = {"argv": ["sh", "-c", "echo half > half; exit 3"], "parser": "raw"}
    hosts = [a_host("h0", slots=9, work_dir=str(here.place / "h0"))]
    apply(conn, forge_url=workshop.forge.url, hosts=hosts, clis={"coder": cli})

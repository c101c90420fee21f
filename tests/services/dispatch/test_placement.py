"""Placing tasks on hosts: slots are never exceeded, and a refusal is a sentence."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from app.domain.host import Fitness, Probe
from app.domain.run import Outcome, Verdict
from app.domain.task import Mode, State
from app.ports import Fleet
from app.services.dispatch import explain, placement
from app.services.runs import expiry, report
from app.store import hosts, repositories, tasks
from app.store.runs import of_task
from app.store.tables import runs
from tests.builders import a_host, a_repository, a_stored_task, apply
from tests.conftest import FakeClock


def test_many_who_place_at_once_never_exceed_the_slots(fleet: Fleet) -> None:
    with fleet.engine.begin() as conn:
        apply(conn, hosts=[a_host("a", slots=3), a_host("b", slots=2)])
        for number in range(30):
            a_stored_task(conn, f"acme/widgets#{number + 1}")
    with ThreadPoolExecutor(8) as pool:
        placed = sum(pool.map(lambda _: placement.place_waiting(fleet), range(16)))
    assert placed == 5
    with fleet.engine.begin() as conn:
        counts = conn.execute(sa.select(runs.c.host_id, sa.func.count()).group_by(runs.c.host_id)).all()
    assert sorted((host, count) for host, count in counts) == [("a", 3), ("b", 2)]


def test_a_task_for_agents_stays_where_it_is(fleet: Fleet) -> None:
    with fleet.engine.begin() as conn:
        apply(conn)
        task = a_stored_task(conn, mode=Mode.HTTP_PULL)
    assert placement.place_waiting(fleet) == 0
    with fleet.engine.begin() as conn:
        assert tasks.load(conn, task.id).state is State.CREATED


def test_why_names_what_each_host_lacks(fleet: Fleet) -> None:
    with fleet.engine.begin() as conn:
        apply(conn)
        task = a_stored_task(conn, needs=("gpu",))
    assert placement.place_waiting(fleet) == 0
    with fleet.engine.begin() as conn:
        assert explain.why(conn, task)["refusals"] == {"localhost": "coder lacks gpu"}


def test_the_higher_priority_goes_first(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    with fleet.engine.begin() as conn:
        apply(conn, hosts=[a_host(slots=1)])
        low, urgent = (
            a_stored_task(conn, "acme/widgets#1", priority=0),
            a_stored_task(conn, "acme/widgets#2", priority=3),
        )
    assert placement.place_waiting(fleet) == 1
    with fleet.engine.begin() as conn:
        assert [tasks.load(conn, task.id).state for task in (low, urgent)] == [State.CREATED, State.ASSIGNED]


def test_tasks_for_a_cli_that_nobody_has_hold_up_none_behind_them(fleet: Fleet) -> None:
    with fleet.engine.begin() as conn:
        apply(conn)
        nobody_has_it = tasks.requirement_set(conn, ("python",), "another-cli")
        for number in range(20):
            a_stored_task(conn, f"acme/widgets#{number + 1}", requirement_set_id=nobody_has_it)
        healthy = a_stored_task(conn, "acme/widgets#99")
    assert placement.place_waiting(fleet) == 1
    with fleet.engine.begin() as conn:
        assert tasks.load(conn, healthy.id).state is State.ASSIGNED


def test_a_repository_that_keeps_files_in_lfs_goes_where_git_lfs_is_once_a_run_has_seen_that(
    fleet: Fleet, clock: FakeClock
) -> None:
    with fleet.engine.begin() as conn:
        apply(conn, hosts=[a_host("a", slots=9), a_host("b", slots=1)])
        repositories.save_repository(conn, "main", a_repository())
        for host_id, lfs in (("a", False), ("b", True)):
            hosts.save_probe(
                conn, host_id, clock(), Fitness.FIT, None, Probe.from_answer({"lfs": lfs, "load": [0.0]}, 0, 0)
            )
        first = a_stored_task(conn, "acme/widgets#1")
    assert placement.place_waiting(fleet) == 1
    with fleet.engine.begin() as conn:
        run = of_task(conn, first.id)[0]
    assert run.host_id == "a"
    lacks = {"end": "failed", "step": "prepare", "failure": "lfs_missing", "lfs": True, "reason": "no git-lfs"}
    report.ended(fleet, run, lacks, Outcome(Verdict.UNKNOWN))
    clock.pass_(60)
    expiry.expire_and_wake(fleet)
    with fleet.engine.begin() as conn:
        second = a_stored_task(conn, "acme/widgets#2")
        a_stored_task(conn, "acme/gears#3", repository_id=43)
    assert placement.place_waiting(fleet) == 2
    with fleet.engine.begin() as conn:
        placed = {
            one.task_id: one.host_id for one in tasks.all_tasks(conn) if one.host_id and one.state is State.ASSIGNED
        }
        waits = tasks.load(conn, second.id)
        assert placed == {"acme/widgets#1": "b", "acme/gears#3": "a"}, "it holds up nobody"
        assert "git-lfs, which this repository needs, is not installed there" in str(
            explain.why(conn, waits)["sentence"]
        )

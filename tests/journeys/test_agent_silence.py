"""The reference agent and its lease: what happens when one side gets no message from the other for too long."""

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.store.tables import periodic_jobs, runs
from tests.journeys.agent_process import pulling
from tests.journeys.issue_journey import Journey
from tests.journeys.test_agent import facts, operator, wired
from tests.patience import wait_until

pytestmark = pytest.mark.journey


def test_a_run_whose_lease_cannot_be_renewed_ends_before_the_lease_does(hasty_stage: Journey, tmp_path: Path) -> None:
    with pulling(hasty_stage, tmp_path) as puller, puller.held(), wired(hasty_stage, puller) as wire:
        puller.start()
        task_id = puller.issue()
        hasty_stage.until(puller.at_work, "the CLI at work")
        hasty_stage.until(lambda: hasty_stage.task(task_id)["status"] == "running", "confirmed")
        wire.cut()
        wait_until(lambda: not puller.at_work(), "the CLI is ended")
        assert hasty_stage.task(task_id)["status"] == "running"  # the lease still lasts
        hasty_stage.until(lambda: "expired" in facts(hasty_stage, task_id), "the lease is over")
        wire.mend()
        hasty_stage.until(lambda: len(hasty_stage.task(task_id)["runs"]) == 2, "it came to us again by a new lease")
        hasty_stage.until(puller.at_work, "the CLI at work again")
        assert hasty_stage.task(task_id)["runs"][0]["end"] == "expired"
        operator(hasty_stage, "cancel", task_id)
        hasty_stage.until(lambda: not puller.holds(), "left")


def test_when_the_fleet_itself_was_away_the_lease_lasts_and_the_session_goes_on(
    hasty_stage: Journey, tmp_path: Path
) -> None:
    with pulling(hasty_stage, tmp_path) as puller, puller.held():
        puller.start()
        task_id = puller.issue()
        hasty_stage.until(puller.at_work, "the CLI at work")
        before = puller.at_work()
        children = hasty_stage.stage.manager.children
        for child in [child for child in children if child.name in ("web", "beat", "worker")]:
            child.stop()
        wait_until(lambda: "paused" in puller.steps(), "the run is ended, since nobody renews its lease")
        an_hour_passes(hasty_stage)
        hasty_stage.until(lambda: set(puller.at_work()) - set(before), "it goes on by the same lease")
        task = hasty_stage.task(task_id)
        assert (task["status"], [run["end"] for run in task["runs"]], task["retry_count"]) == ("running", [None], 0)
        operator(hasty_stage, "cancel", task_id)
        hasty_stage.until(lambda: not puller.holds() and not puller.at_work(), "the operator's word reached it")
        hasty_stage.assert_history_holds()


def an_hour_passes(travel: Journey) -> None:
    """For the processes of the fleet, which are not there to see it."""
    hour = timedelta(hours=1)
    with travel.stage.fleet.engine.begin() as conn:
        conn.execute(sa.update(periodic_jobs).values(ran_at=periodic_jobs.c.ran_at - hour))
        conn.execute(sa.update(runs).where(runs.c.ended_at.is_(None)).values(deadline=runs.c.deadline - hour))

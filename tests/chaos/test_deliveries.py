"""Deliveries doubled, shuffled, late or lost: the same end as with all in order."""

from pathlib import Path

import pytest

from tests.journeys.traveller import Journey, journey

pytestmark = pytest.mark.journey


def assert_the_usual_end(travel: Journey, task_id: str) -> None:
    task = travel.to_the_merge(task_id)
    assert (task["status"], task["review_count"], len(task["runs"])) == ("completed", 1, 2)
    assert len(travel.pulls()) == 1
    assert travel.comment_kinds(task_id) == ["status", "receipt"]
    travel.assert_history_holds()


def test_every_delivery_doubled_and_shuffled(tmp_path: Path) -> None:
    with journey(tmp_path) as travel:
        travel.forge.faults.double = True
        travel.forge.faults.shuffle = True
        assert_the_usual_end(travel, travel.open_issue())


def test_no_delivery_at_all(tmp_path: Path) -> None:
    with journey(tmp_path, FLEET_RECONCILE_SECS="1") as travel:
        travel.forge.faults.webhooks_off = True
        assert_the_usual_end(travel, travel.open_issue())

"""Deliveries doubled, shuffled, late or lost: the same end as with all in order."""

from collections.abc import Iterator

import pytest

from app.cli.demo.forge import Faults
from tests.chaos.test_processes_die import assert_the_usual_end
from tests.journeys.issue_journey import Journey

pytestmark = pytest.mark.journey


@pytest.fixture
def faults(stage_of_hosts: Journey) -> Iterator[Faults]:
    yield stage_of_hosts.forge.faults
    stage_of_hosts.forge.faults.clear()


def test_every_delivery_doubled_and_shuffled(stage_of_hosts: Journey, faults: Faults) -> None:
    faults.double = True
    faults.shuffle = True
    assert_the_usual_end(stage_of_hosts, stage_of_hosts.open_issue())


def test_no_delivery_at_all(stage_of_hosts: Journey, faults: Faults) -> None:
    faults.webhooks_off = True
    assert_the_usual_end(stage_of_hosts, stage_of_hosts.open_issue())

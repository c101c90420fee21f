"""Deliveries in any order, lost or repeated: after a reconcile the result is the same as with all of them in order.

FLEET_TEST_STORIES sets the number of examples of each story. A story takes long."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from app.domain.task import State
from app.ports import Fleet
from app.services.replay import differences
from app.store import views
from tests import servers
from tests.fakes.checked_forge import checked_forge
from tests.workshop import WIDGETS, Workshop

pytestmark = pytest.mark.timeout(900)  # a story is long, and other tests run beside it
few = settings(
    max_examples=int(os.environ.get("FLEET_TEST_STORIES", "3")), deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
IN_ORDER = None


@dataclass(frozen=True)
class End:
    """The result of a story, as far as it is visible from outside."""

    tasks: list[tuple[Any, ...]]
    pulls: int
    comments: list[list[str]]
    labels: list[set[str]]
    receipts: int


class Story:
    """Issues on the way to their end, with deliveries in random order, and a forge that sometimes fails."""

    def __init__(self, workshop: Workshop, data: st.DataObject | None) -> None:
        self.workshop, self.data = workshop, data

    def post(self) -> None:
        """Deliver some of what was sent so far, in any order, some of it twice under new ids; or all new deliveries in order."""
        shop = self.workshop
        if self.data is IN_ORDER:
            shop.converge()
            return
        shop.forge.wait_for_deliveries()
        sent = shop.forge.deliveries
        if self.data.draw(st.booleans()):
            shop.forge.faults.next("GET", r"/(issues|pulls)/\d+$", 502)
        numbers = st.lists(st.integers(0, max(0, len(sent) - 1)), max_size=min(len(sent), 6))
        for number in self.data.draw(numbers) if sent else ():
            headers = {**sent[number].headers, "X-Forgejo-Delivery": str(uuid.uuid4())}
            assert shop.client.post("/webhooks/forgejo", data=sent[number].raw, headers=headers).status_code == 202
        shop.work()

    def until(self, number: int, *states: State) -> None:
        """Reconcile until the task has one of these states; three times, since the forge may fail."""
        shop = self.workshop
        for _ in range(3):
            if not any(task.issue_number == number and task.state in states for task in shop.tasks()):
                shop.reconcile()
        assert shop.task(number).state in states

    def noted(self, number: int) -> None:
        """Reconcile until the edit of the issue is noted."""
        for _ in range(3):
            if "issue_edited" not in self.workshop.facts(number):
                self.workshop.reconcile()
        assert "issue_edited" in self.workshop.facts(number)

    def to_the_merge(self, number: int) -> None:
        shop = self.workshop
        self.until(number, State.ASSIGNED)
        shop.start(number)
        shop.finish(number)
        self.post()
        self.until(number, State.REVIEW_PENDING)
        pull = shop.task(number).pr_number or 0
        shop.review(pull)
        self.post()
        self.until(number, State.RUNNING)
        shop.start(number)
        shop.finish(number, "2")
        shop.comment(number, "/status")
        self.post()
        self.until(number, State.REVIEW_PENDING)
        shop.merge(pull)
        self.post()

    def end(self) -> End:
        shop = self.workshop
        for _ in range(3):
            shop.reconcile()
        assert differences(shop.fleet)[1] == []
        tasks = sorted(shop.tasks(), key=lambda task: task.issue_number or 0)
        numbers = [task.issue_number or 0 for task in tasks]
        with shop.fleet.engine.begin() as conn:
            receipts = sum(views.receipt_of(conn, task.task_id) is not None for task in tasks)
        return End(
            [
                (task.issue_number, task.state, task.reason, task.run, task.review_count, task.pr_number)
                for task in tasks
            ],
            len(shop.pulls()),
            [
                sorted(text.rpartition("kind=")[2].removesuffix(" -->") for text in shop.comments(number))
                for number in numbers
            ],
            [shop.labels(number) for number in numbers],
            receipts,
        )


def one(story: Story) -> End:
    number = story.workshop.open_issue()
    story.post()
    story.to_the_merge(number)
    return story.end()


def two(story: Story) -> End:
    """One task is merged; the other is cancelled by a command during its run."""
    shop = story.workshop
    first, second = shop.open_issue(), shop.open_issue("Count the words")
    story.post()
    story.until(second, State.ASSIGNED)
    shop.start(second)
    shop.comment(second, "/cancel")
    story.post()
    story.to_the_merge(first)
    story.until(second, State.CANCELLED)
    return story.end()


def troubled(story: Story) -> End:
    """Edited during a run, closed and reopened, pushed to by others, used by a reader, checked, in conflict with its base,
    merged."""
    shop = story.workshop
    number = shop.open_issue()
    story.post()
    story.until(number, State.ASSIGNED)
    shop.start(number)
    shop.edit(number, body="It is off by two.")
    story.post()
    story.noted(number)
    shop.close(number)
    story.post()
    story.until(number, State.CANCELLED)
    shop.reopen(number)
    story.post()
    story.until(number, State.ASSIGNED)
    shop.start(number)
    shop.finish(number)
    story.post()
    story.until(number, State.REVIEW_PENDING)
    pull = shop.task(number).pr_number or 0
    shop.say("POST", "/branches", new_branch_name="release")
    branch = shop.task(number).branch
    strangers = shop.say("POST", "/pulls", "mallory", head=branch, base="release", title="Mine")["number"]
    story.post()
    shop.say("PATCH", f"/pulls/{strangers}", "mallory", state="closed")
    shop.forge.run_ci(WIDGETS, shop.push(number, "by others"), "failure")
    shop.label(number, "agent:python", "status:review", "priority:high")
    story.post()
    shop.forge.commit(WIDGETS, "alice", "main", {"total.py": "9"}, "Move the base")
    story.post()
    story.until(number, State.RUNNING)
    shop.start(number)
    shop.finish(number, "9")
    story.post()
    story.until(number, State.REVIEW_PENDING)
    shop.merge(pull)
    story.post()
    return story.end()


Tale = Callable[[Story], End]


@contextmanager
def fresh(engine: Engine, make_fleet: Callable[..., Fleet], folder: Path) -> Iterator[Workshop]:
    """An empty forge and an empty database."""
    servers.empty(engine)
    with checked_forge(folder / uuid.uuid4().hex) as forge:
        yield Workshop(forge, make_fleet)
        assert forge.violations == []


EXPECTED: dict[Tale, End] = {
    one: End(
        [(1, State.COMPLETED, None, 2, 1, 2)], 1, [["receipt", "reply", "status"]],
        [{"agent:python", "status:done"}], 1,
    ),
    two: End(
        [(1, State.COMPLETED, None, 2, 1, 3), (2, State.CANCELLED, "cancelled", 1, 0, None)], 1,
        [["receipt", "reply", "status"], ["status"]], [{"agent:python", "status:done"}, {"agent:python"}], 1,
    ),
    troubled: End(
        [(1, State.COMPLETED, None, 3, 0, 2)], 2, [["edited", "receipt", "status"]],
        [{"agent:python", "priority:high", "status:done"}], 1,
    ),
}  # fmt: skip


every_story = pytest.mark.parametrize("tell", EXPECTED)


@every_story
@given(data=st.data())
@few
def test_a_story_ends_the_same_with_deliveries_in_any_order(
    engine: Engine, make_fleet: Callable[..., Fleet], tmp_path: Path, tell: Tale, data: st.DataObject
) -> None:
    with fresh(engine, make_fleet, tmp_path) as workshop:
        assert tell(Story(workshop, data)) == EXPECTED[tell]


@every_story
def test_a_story_ends_as_expected_with_deliveries_in_order(
    engine: Engine, make_fleet: Callable[..., Fleet], tmp_path: Path, tell: Tale
) -> None:
    with fresh(engine, make_fleet, tmp_path) as workshop:
        assert tell(Story(workshop, IN_ORDER)) == EXPECTED[tell]


@every_story
def test_a_story_ends_the_same_without_deliveries(
    engine: Engine, make_fleet: Callable[..., Fleet], tmp_path: Path, tell: Tale
) -> None:
    with fresh(engine, make_fleet, tmp_path) as workshop:
        workshop.forge.faults.webhooks_off = True
        assert tell(Story(workshop, IN_ORDER)) == EXPECTED[tell]
